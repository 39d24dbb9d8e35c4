"""The state of the node as one diagnostic status: what it does, how fast, and why it stands still."""

from __future__ import annotations

import time
from collections.abc import Mapping

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.node import Node

from lightvla_ros.core.control_loop import ControlLoop
from lightvla_ros.core.metrics import RateMeter, Window
from lightvla_ros.nodes import qos

_QUIET = ("no_instruction", "disabled", "inactive")
_ERRORS = ("fault", "two_publishers", "instruction", "refused")


class Diagnostics:
    """Publish on /diagnostics."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._publisher = node.create_publisher(DiagnosticArray, "/diagnostics", qos.DIAGNOSTICS)

    def publish(self, status: DiagnosticStatus) -> None:
        """Publish one status under the node's name."""
        status.name = f"{self._node.get_name()}: policy"
        message = DiagnosticArray(status=[status])
        message.header.stamp = self._node.get_clock().now().to_msg()
        self._publisher.publish(message)


def idle_status(reason: str, *, is_error: bool) -> DiagnosticStatus:
    """Make the status of a node that has no policy."""
    level = DiagnosticStatus.ERROR if is_error else DiagnosticStatus.OK
    return DiagnosticStatus(level=level, message=reason, values=[KeyValue(key="stop_reason", value=reason)])


def running_status(loop: ControlLoop, values: Mapping[str, object]) -> DiagnosticStatus:
    """Make the status of a configured node: the loop's own state and what the caller adds."""
    reason = loop.stop_reason
    level = DiagnosticStatus.OK
    if reason is not None and reason.code not in _QUIET:
        is_error = reason.code.partition(":")[0] in _ERRORS
        level = DiagnosticStatus.ERROR if is_error else DiagnosticStatus.WARN
    table: dict[str, object] = {
        "active": loop.active,
        "enabled": loop.enabled,
        "instruction": loop.instruction,
        "epoch": loop.epoch,
        "stop_reason": reason.code if reason else "",
        **values,
        **_retained(loop.retained),
        **_latencies(loop.latencies_ms),
        **dict(sorted(loop.counts().items())),
    }
    return DiagnosticStatus(
        level=level,
        message=reason.message if reason else f"acting on {loop.instruction!r}",
        values=[KeyValue(key=key, value=_text(value)) for key, value in table.items()],
    )


def rates(meters: Mapping[str, RateMeter]) -> dict[str, float]:
    """Read the current rate of each meter."""
    now_ns = time.monotonic_ns()
    return {f"{name}_rate_hz": meter.rate_hz(now_ns) for name, meter in meters.items()}


def _retained(retained: Window) -> dict[str, object]:
    if retained.last is None:
        return {}
    low, middle, high = retained.percentiles(0, 50, 100)
    return {
        "retained_last": int(retained.last),
        "retained_min": int(low),
        "retained_median": middle,
        "retained_max": int(high),
    }


def _latencies(windows: Mapping[str, Window]) -> dict[str, object]:
    return {
        f"{stage}_{name}_ms": value
        for stage, window in list(windows.items())
        for name, value in zip(("p50", "p95", "p99"), window.percentiles(50, 95, 99), strict=False)
    }


def _text(value: object) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)
