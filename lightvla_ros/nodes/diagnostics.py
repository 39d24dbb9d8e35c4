"""The state of the node as one diagnostic status: what it does, how fast, and why it stands still.

Whoever hears /diagnostics reads them here as well.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.node import Node

from lightvla_ros.core.control_loop import ControlLoop
from lightvla_ros.core.metrics import Latencies, RateMeter, Window
from lightvla_ros.core.watchdog import StopReason
from lightvla_ros.nodes import qos
from lightvla_ros.view.policy_status import STATUS_SUFFIX

# Kinds of stop by how much they ask of a person: nothing, an intervention, and a look for all others.
_OK = ("no_instruction", "disabled", "inactive", "awaiting_chunk")
_ERRORS = (
    "fault",
    "chunk",
    "worker",
    "two_publishers",
    "two_commanders",
    "instruction",
    "refused",
    "estop",
)


class Diagnostics:
    """Publish on /diagnostics."""

    def __init__(self, node: Node) -> None:
        self._clock = node.get_clock()
        # Nodes of several robots share the topic, so the namespace is told where there is one.
        self._name = f"{node.get_fully_qualified_name().lstrip('/')}{STATUS_SUFFIX}"
        self._message = DiagnosticArray()
        self._publisher = node.create_publisher(DiagnosticArray, "/diagnostics", qos.DIAGNOSTICS)

    def publish(self, status: DiagnosticStatus) -> None:
        """Publish one status under the node's full name, without the leading slash."""
        status.name = self._name
        self._message.status = [status]
        self._message.header.stamp = self._clock.now().to_msg()
        self._publisher.publish(self._message)


def idle_status(reason: str, *, is_error: bool) -> DiagnosticStatus:
    """Make the status of a node that has no policy."""
    level = DiagnosticStatus.ERROR if is_error else DiagnosticStatus.OK
    return DiagnosticStatus(level=level, message=reason, values=[KeyValue(key="stop_reason", value=reason)])


def running_status(loop: ControlLoop, values: Mapping[str, object]) -> DiagnosticStatus:
    """Make the status of a configured node: the loop's own state and what the caller adds."""
    reason = loop.stop_reason
    table: dict[str, object] = {
        "active": loop.active,
        "enabled": loop.enabled,
        "instruction": loop.instruction,
        "epoch": loop.epoch,
        "stop_reason": reason.code if reason else "",
        **values,
        **_retained(loop.retained),
        **_latencies(loop.latencies),
    }
    return DiagnosticStatus(
        level=_level(reason),
        message=reason.message if reason else f"acting on {loop.instruction!r}",
        values=[KeyValue(key=key, value=_text(value)) for key, value in table.items()],
    )


def statuses_in(message: DiagnosticArray) -> Iterator[tuple[str, int, str, dict[str, str]]]:
    """Yield name, level, message and key -> value of each status that anybody published."""
    for status in message.status:
        values = {item.key: item.value for item in status.values}
        yield status.name, int.from_bytes(status.level, "little"), status.message, values


def rates(meters: Mapping[str, RateMeter]) -> dict[str, float]:
    """Read the current rate of each meter."""
    now_ns = time.monotonic_ns()
    return {f"{name}_rate_hz": meter.rate_hz(now_ns) for name, meter in meters.items()}


def _level(reason: StopReason | None) -> Any:
    kind = reason.code.partition(":")[0] if reason else None
    if kind is None or kind in _OK:
        return DiagnosticStatus.OK
    return DiagnosticStatus.ERROR if kind in _ERRORS else DiagnosticStatus.WARN


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


def _latencies(latencies: Latencies) -> dict[str, object]:
    return {
        f"{stage}_{name}_ms": value
        for stage, values in latencies.percentiles_ms(50, 95, 99).items()
        for name, value in zip(("p50", "p95", "p99"), values, strict=False)
    }


def _text(value: object) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)
