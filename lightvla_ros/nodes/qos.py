"""Quality of service of every topic of the policy node, in one place."""

from __future__ import annotations

from dataclasses import dataclass

from rclpy.qos import DurabilityPolicy, HistoryPolicy, LivelinessPolicy, QoSProfile, ReliabilityPolicy


def _keep_last(depth: int, reliability: ReliabilityPolicy, durability: DurabilityPolicy) -> QoSProfile:
    return QoSProfile(
        history=HistoryPolicy.KEEP_LAST,
        depth=depth,
        reliability=reliability,
        durability=durability,
        liveliness=LivelinessPolicy.AUTOMATIC,  # what it is anyway, but a default cannot be compared
    )


_VOLATILE = DurabilityPolicy.VOLATILE
_RELIABLE = ReliabilityPolicy.RELIABLE
_BEST_EFFORT = ReliabilityPolicy.BEST_EFFORT


@dataclass(frozen=True, slots=True)
class MatchedQos:
    """What a subscription asks for, by what the publishers of its topic offer.

    Attributes:
        unmatched: while there is no publisher.
        choices: most demanding first; the first that every publisher offers, else the last.
        always: beside these, so that who speaks at once, keeps nothing and is gone is heard; what others say
            comes twice.
    """

    unmatched: QoSProfile
    choices: tuple[QoSProfile, ...]
    always: QoSProfile | None = None


def _matched(depth: int) -> MatchedQos:
    """Reliable where all publishers are: the parts of large images that are lost are sent again."""
    best_effort = _keep_last(depth, _BEST_EFFORT, _VOLATILE)
    return MatchedQos(best_effort, (_keep_last(depth, _RELIABLE, _VOLATILE), best_effort))


def _fixed(profile: QoSProfile) -> MatchedQos:
    return MatchedQos(profile, (profile,))


CAMERA = {
    "auto": _matched(1),
    "best_effort": _fixed(_keep_last(1, _BEST_EFFORT, _VOLATILE)),
    "reliable": _fixed(_keep_last(1, _RELIABLE, _VOLATILE)),
}
# Several drivers may share joint_states: a queue keeps one from pushing out another's message.
ROBOT_STATE = _keep_last(10, _BEST_EFFORT, _VOLATILE)
# Kept for a node that comes later, where the publishers keep it.
LATCHED = _keep_last(1, _RELIABLE, DurabilityPolicy.TRANSIENT_LOCAL)
INSTRUCTION = MatchedQos(LATCHED, (LATCHED, *_matched(1).choices), always=_keep_last(1, _RELIABLE, _VOLATILE))
# Whatever is published, kept messages included, by whomever.
_LATCHED_MANY = _keep_last(50, _RELIABLE, DurabilityPolicy.TRANSIENT_LOCAL)
RECORDING = MatchedQos(_LATCHED_MANY, (_LATCHED_MANY, *_matched(50).choices))
# Diagnostics and records, by whomever they are published or played back.
OBSERVED = _matched(20)
# None may be lost, and buttons rarely keep their message for latecomers.
ESTOP = _matched(10)
COMMAND = _keep_last(1, _RELIABLE, _VOLATILE)
PICTURE = _keep_last(1, _RELIABLE, _VOLATILE)
# A recording wants every one of them.
RECORD = _keep_last(20, _RELIABLE, _VOLATILE)
DIAGNOSTICS = _keep_last(10, _RELIABLE, _VOLATILE)
