"""An ear on one topic, whoever publishes what on it with whatever quality of service."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSCompatibility, QoSProfile, qos_check_compatible

from lightvla_ros.core.graph_survey import Arrival, Endpoint, Topic
from lightvla_ros.nodes import qos
from lightvla_ros.nodes.message_facts import KINDS, Facts, facts_of
from lightvla_ros.nodes.topics import full_name, node_of

if TYPE_CHECKING:
    from rclpy.topic_endpoint_info import TopicEndpointInfo  # elsewhere in Lyrical

# A topic of a thousand messages a second is known well enough by then.
_MAX_ARRIVALS = 5000


class TopicListener:
    """Listen on a topic as soon as somebody publishes the expected type there.

    Args:
        node: listens.
        topic: full name.
        type_name: message type that is expected.
        now: returns the newest time on /clock, None before there was one.
    """

    def __init__(self, node: Node, topic: str, type_name: str, now: Callable[[], int | None]) -> None:
        self._node, self._topic, self._type_name, self._now = node, topic, type_name, now
        self._is_listening = False
        self._arrivals: list[Arrival] = []
        self._joint_names: set[tuple[str, ...]] = set()
        self._facts = Facts()
        self._problem = ""
        self._num_bytes = 0

    @property
    def newest_ns(self) -> int | None:
        """Stamp of the newest message."""
        return self._facts.stamp_ns

    def watch(self) -> None:
        """Subscribe once there is a publisher; to be called a few times a second."""
        if self._is_listening:
            return
        publishers = self._node.get_publishers_info_by_topic(self._topic)
        offers = [info.qos_profile for info in publishers if info.topic_type == self._type_name]
        if offers:
            self._is_listening = True
            kind = KINDS[self._type_name]
            self._node.create_subscription(
                kind, self._topic, lambda data: self._take(data, kind), _profile_for(offers), raw=True
            )

    def result(self, policy_node: str) -> Topic:
        """Return what there was.

        Args:
            policy_node: full name of the node whose end of the topic the others must fit.
        """
        publishers = self._node.get_publishers_info_by_topic(self._topic)
        subscriptions = self._node.get_subscriptions_info_by_topic(self._topic)
        asked = _profile_of(subscriptions, policy_node)
        offered = _profile_of(publishers, policy_node)
        own = full_name(self._node.get_name(), self._node.get_namespace())
        return Topic(
            name=self._topic,
            type_name=self._type_name,
            publishers=tuple(
                _endpoint(info, info.qos_profile, asked or info.qos_profile) for info in publishers
            ),
            subscriptions=tuple(
                _endpoint(info, offered or info.qos_profile, info.qos_profile)
                for info in subscriptions
                if node_of(info) != own
            ),
            arrivals=tuple(self._arrivals),
            ended_ns=time.monotonic_ns(),
            content=self._facts.content,
            num_bytes=self._num_bytes,
            problem=self._problem,
            joint_names=frozenset(self._joint_names),
        )

    def _take(self, data: bytes, kind: type[Any]) -> None:
        monotonic_ns, system_ns = time.monotonic_ns(), time.time_ns()
        if len(self._arrivals) == _MAX_ARRIVALS:
            return
        facts = facts_of(data, kind)
        self._arrivals.append(
            Arrival(
                monotonic_ns=monotonic_ns, system_ns=system_ns, sim_ns=self._now(), stamp_ns=facts.stamp_ns
            )
        )
        self._facts = facts
        self._problem = self._problem or facts.problem
        self._num_bytes = max(self._num_bytes, len(data))
        if facts.joint_names:
            self._joint_names.add(facts.joint_names)


def _profile_for(offers: Sequence[QoSProfile]) -> QoSProfile:
    """Return the most that all publishers offer: asking for more makes each of them log a warning."""
    for profile in qos.RECORDING.choices:
        if all(qos_check_compatible(offer, profile)[0] != QoSCompatibility.ERROR for offer in offers):
            return profile
    return qos.RECORDING.choices[-1]


def _profile_of(ends: Sequence[TopicEndpointInfo], node: str) -> QoSProfile | None:
    """Return what a node asks or offers; what it asks least where it has several ends."""
    profiles = [info.qos_profile for info in ends if node_of(info) == node]
    return profiles[-1] if profiles else None


def _endpoint(info: TopicEndpointInfo, offered: QoSProfile, asked: QoSProfile) -> Endpoint:
    profile = info.qos_profile
    compatibility, reason = qos_check_compatible(offered, asked)
    return Endpoint(
        node=node_of(info),
        type_name=info.topic_type,
        qos=_words(profile),
        is_reliable=profile.reliability == qos.COMMAND.reliability,
        mismatch=_plain(reason) if compatibility == QoSCompatibility.ERROR else "",
    )


def _plain(reason: str) -> str:
    """Turn "ERROR: One;WARNING: Other;" into "one, other"."""
    parts = (part.partition(": ")[2] for part in reason.split(";"))
    return ", ".join(part[0].lower() + part[1:] for part in parts if part)


def _words(profile: QoSProfile) -> str:
    """Say how messages are delivered; that none is kept for latecomers is the usual."""
    policies = [profile.reliability]
    if profile.durability != DurabilityPolicy.VOLATILE:
        policies.append(profile.durability)
    return ", ".join(policy.name.lower().replace("_", " ") for policy in policies)
