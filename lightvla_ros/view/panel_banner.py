"""The banner: what a policy node does and why it stands still, by how much that asks of a person."""

from __future__ import annotations

from lightvla_ros.view.panel_state import Banner, Severity
from lightvla_ros.view.policy_status import Snapshot
from lightvla_ros.view.status_trace import Trace, duration

# What ends by itself within moments.
_PASSING = ("waiting",)


def banner(trace: Trace | None, now_s: float, sought: str) -> Banner:
    """Tell the state of a node.

    Args:
        trace: its past; None before it was heard.
        now_s: time by the trace's clock.
        sought: which node is awaited, in words.
    """
    if trace is None:
        remedy = "start it with `ros2 launch lightvla_ros policy.launch.py`, or set ROS_DOMAIN_ID as it has"
        return Banner(
            severity=Severity.NEUTRAL, headline="WAITING", detail=f"for diagnostics of {sought}; {remedy}"
        )
    snapshot, silence_s = trace.snapshot, trace.silence_s(now_s)
    if silence_s is not None:
        return Banner(
            severity=Severity.ERROR,
            headline=f"SILENT  nothing heard for {duration(silence_s)}",
            detail=f"{snapshot.node} was {snapshot.state} when it last told. Fix: see whether it still runs",
        )
    lasted = trace.lasted(now_s)
    headline = "  ".join(filter(None, (snapshot.state.upper(), snapshot.reason)))
    return Banner(
        severity=_severity(snapshot),
        headline=f"{headline}  for {lasted}" if lasted else headline,
        detail=snapshot.message if snapshot.state != "acting" else _rates(snapshot),
    )


def _severity(snapshot: Snapshot) -> Severity:
    if snapshot.state == "acting":
        return Severity.GOOD
    if snapshot.level == "ok":
        return Severity.NEUTRAL
    is_passing = snapshot.state == "holding" or snapshot.reason.partition(":")[0] in _PASSING
    return Severity.WARNING if is_passing and snapshot.level == "warning" else Severity.ERROR


def _rates(snapshot: Snapshot) -> str:
    rates_hz = snapshot.rates_hz
    names = {"inference": "inferences", "command": "commands"}
    told = [f"{rates_hz[name]:.1f} {words}" for name, words in names.items() if name in rates_hz]
    return f"{', '.join(told)} a second" if told else ""
