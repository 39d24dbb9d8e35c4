"""What was seen and heard of a ROS graph for a while: plain values, so that they are judged without ROS."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from lightvla_ros.core.config import NodeConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A publisher or subscription of a topic.

    Attributes:
        node: full name of the node it belongs to.
        type_name: message type, "package/msg/Name".
        qos: how it delivers, in words: "best effort", "reliable", "reliable, transient local".
        is_reliable: whether lost messages are sent again.
        mismatch: why ROS does not join it with the policy node's end of the topic; "" where it does.
    """

    node: str
    type_name: str
    qos: str = "reliable"
    is_reliable: bool = True
    mismatch: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """When one message came.

    Attributes:
        monotonic_ns: by the clock that never jumps.
        system_ns: by the computer's clock.
        sim_ns: newest time on /clock; None before there was one.
        stamp_ns: of the message; None where its type has none.
    """

    monotonic_ns: int
    system_ns: int
    sim_ns: int | None = None
    stamp_ns: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic:
    """One topic: who is on it, and what came.

    Attributes:
        name: full name.
        type_name: message type that the policy node expects or publishes.
        publishers: everybody who publishes on it, whatever the type.
        subscriptions: everybody who listens.
        arrivals: of messages of the expected type, oldest first.
        ended_ns: monotonic time at which listening ended.
        content: the newest message in a few words.
        num_bytes: size of the largest message.
        problem: why the policy node would refuse a message that came, and what to do; "" when it takes all.
        joint_names: names of the joints, for each different set of them that came.
    """

    name: str
    type_name: str
    publishers: tuple[Endpoint, ...] = ()
    subscriptions: tuple[Endpoint, ...] = ()
    arrivals: tuple[Arrival, ...] = ()
    ended_ns: int = 0
    content: str = ""
    num_bytes: int = 0
    problem: str = ""
    joint_names: frozenset[tuple[str, ...]] = frozenset()

    @property
    def rate_hz(self) -> float | None:
        """Messages per second from the first to the last; None with fewer than two."""
        if len(self.arrivals) < 2:
            return None
        span_ns = self.arrivals[-1].monotonic_ns - self.arrivals[0].monotonic_ns
        return (len(self.arrivals) - 1) * 1e9 / span_ns if span_ns > 0 else None

    @property
    def longest_gap_s(self) -> float:
        """Longest time without a message since the first one."""
        times = [arrival.monotonic_ns for arrival in self.arrivals]
        return (
            max((after - before for before, after in _successive([*times, self.ended_ns])), default=0) / 1e9
        )

    @property
    def stamps_ns(self) -> list[int]:
        """Stamps in the order of arrival."""
        return [arrival.stamp_ns for arrival in self.arrivals if arrival.stamp_ns is not None]

    @property
    def num_repeats(self) -> int:
        """Messages whose stamp is not newer than that of the one before."""
        return sum(after <= before for before, after in _successive(self.stamps_ns))

    @property
    def runs_backwards(self) -> bool:
        """Whether a stamp is older than the one before."""
        return any(after < before for before, after in _successive(self.stamps_ns))

    def ages_s(self, *, uses_sim_time: bool) -> list[float]:
        """Age of each message on arrival; negative where its stamp is ahead of the clock.

        Args:
            uses_sim_time: measure by /clock, else by the computer's clock.
        """
        return [
            (now_ns - arrival.stamp_ns) / 1e9
            for arrival in self.arrivals
            if arrival.stamp_ns is not None
            and (now_ns := arrival.sim_ns if uses_sim_time else arrival.system_ns) is not None
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyNode:
    """What the policy node tells about itself.

    Attributes:
        name: full name.
        count: nodes of that name.
        state: of its lifecycle; "" when it did not say.
        config: its parameters, the defaults when it did not say.
        told_config: whether it did.
        uses_sim_time: whether its time is /clock's.
        level: of its diagnostics: "ok", "warning" or "error".
        stop_code: why it stands still, in one word; "" while it moves and when it did not say.
        stop_message: the same in a sentence.
        instruction: what it was told to do.
    """

    name: str
    count: int = 1
    state: str = ""
    config: NodeConfig = field(default_factory=NodeConfig)
    told_config: bool = True
    uses_sim_time: bool = False
    level: str = "ok"
    stop_code: str = ""
    stop_message: str = ""
    instruction: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphSurvey:
    """Everything about the graph that matters to a policy node.

    Attributes:
        seconds: how long was listened.
        domain: ROS_DOMAIN_ID.
        wanted: full name of the policy node that was looked for.
        nodes: full names of the nodes there are.
        policy: the policy node; None when there is none.
        other_policies: full names of the others.
        cameras: camera -> its topic.
        states: the topics of the robot's state.
        instruction: the topic of instructions.
        command: the topic of commands.
        clock: /clock, its arrivals stamped with the time it tells.
        image_topics: images published anywhere, topic -> message type.
        clock_step_s: how far the computer's clock was set while listening, the largest change.
    """

    seconds: float
    domain: str
    wanted: str
    nodes: tuple[str, ...] = ()
    policy: PolicyNode | None = None
    other_policies: tuple[str, ...] = ()
    cameras: Mapping[str, Topic]
    states: tuple[Topic, ...]
    instruction: Topic
    command: Topic
    clock: Topic
    image_topics: Mapping[str, str] = field(default_factory=dict)
    clock_step_s: float = 0.0

    @property
    def config(self) -> NodeConfig:
        """The policy node's parameters, or those it would have."""
        return NodeConfig() if self.policy is None else self.policy.config

    @property
    def uses_sim_time(self) -> bool:
        """Whether stamps are compared with /clock."""
        return self.policy is not None and self.policy.uses_sim_time


@dataclass(frozen=True, slots=True)
class Pairing:
    """How well the stamps of several cameras agree.

    Attributes:
        skew_s: median difference of the stamps of images that are nearest to each other.
        share: of the first camera's images, those with a partner of every other within the allowed skew.
    """

    skew_s: float
    share: float


def pairing(cameras: Sequence[Sequence[int]], max_skew_s: float) -> Pairing | None:
    """Find how well cameras agree in time.

    Args:
        cameras: the stamps of each, ns.
        max_skew_s: largest difference within a pair.

    Returns:
        None with fewer than two cameras, or while one of them was not heard.
    """
    if len(cameras) < 2 or not all(cameras):
        return None
    first, *others = cameras
    skews_s = []
    for stamp_ns in first:
        nearest = [min(stamps, key=lambda other: abs(other - stamp_ns)) for stamps in others]
        skews_s.append((max(stamp_ns, *nearest) - min(stamp_ns, *nearest)) / 1e9)
    return Pairing(median(skews_s), sum(skew <= max_skew_s for skew in skews_s) / len(skews_s))


def _successive(values: Sequence[int]) -> zip[tuple[int, int]]:
    return zip(values, values[1:], strict=False)
