"""Quality of service of every topic of the policy node, in one place."""

from __future__ import annotations

from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy


def _keep_last(depth: int, reliability: ReliabilityPolicy, durability: DurabilityPolicy) -> QoSProfile:
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST, depth=depth, reliability=reliability, durability=durability
    )


_VOLATILE = DurabilityPolicy.VOLATILE
_RELIABLE = ReliabilityPolicy.RELIABLE
_BEST_EFFORT = ReliabilityPolicy.BEST_EFFORT

CAMERA = {
    "best_effort": _keep_last(1, _BEST_EFFORT, _VOLATILE),
    "reliable": _keep_last(1, _RELIABLE, _VOLATILE),
}
# Several drivers may share joint_states: a queue keeps one from pushing out another's message.
ROBOT_STATE = _keep_last(10, _BEST_EFFORT, _VOLATILE)
INSTRUCTION = _keep_last(1, _RELIABLE, DurabilityPolicy.TRANSIENT_LOCAL)
# None may be lost, and buttons rarely keep their message for latecomers.
ESTOP = _keep_last(10, _RELIABLE, _VOLATILE)
COMMAND = _keep_last(1, _RELIABLE, _VOLATILE)
PICTURE = _keep_last(1, _RELIABLE, _VOLATILE)
DIAGNOSTICS = _keep_last(10, _RELIABLE, _VOLATILE)
