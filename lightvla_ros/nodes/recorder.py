"""Records all that a policy node hears and says, whatever its topics are called."""

from __future__ import annotations

import importlib
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, ReliabilityPolicy

from lightvla_ros.core.errors import LightVlaError
from lightvla_ros.nodes import qos
from lightvla_ros.nodes.entities import Entities
from lightvla_ros.nodes.matched_subscription import MatchedSubscription
from lightvla_ros.nodes.message_info import informed
from lightvla_ros.nodes.topics import node_of
from lightvla_ros.recording.bag import BagWriter, TopicOffer

if TYPE_CHECKING:
    from rclpy.topic_endpoint_info import TopicEndpointInfo  # elsewhere in Lyrical

_OVERLAY = "/policy/overlay/"
# What every node has, and what tells nothing about what the policy did.
_LEFT_OUT = ("/parameter_events", "/rosout", "/transition_event")
# Messages that may come twice while a subscription follows its publishers.
_REMEMBERED = 64


class Recorder:
    """Follow a policy node's topics into a bag.

    Args:
        node: hears them.
        bag: where they go.
        policy_node: full name of the policy node.
        with_overlays: also record the overlays, which can be drawn again from the rest.
        warn: is told of a topic that cannot be recorded, once each.
    """

    def __init__(
        self,
        node: Node,
        bag: BagWriter,
        *,
        policy_node: str,
        with_overlays: bool,
        warn: Callable[[str], None],
    ) -> None:
        self._node = node
        self._bag = bag
        self._policy_node = policy_node
        self._with_overlays = with_overlays
        self._warn = warn
        self._entities = Entities(node)
        self._subscriptions: dict[str, MatchedSubscription] = {}
        self._refused: set[str] = set()

    def watch(self) -> None:
        """Look for topics and what their publishers offer; to be called a few times a second."""
        for topic, types in topics_of(self._node, self._policy_node).items():
            publishers = self._node.get_publishers_info_by_topic(topic)
            if topic not in self._subscriptions and topic not in self._refused and publishers:
                self._follow(topic, types, publishers)
        for subscription in self._subscriptions.values():
            subscription.match()

    def close(self) -> None:
        """Stop listening."""
        self._entities.destroy()

    def _follow(self, topic: str, types: list[str], publishers: list[TopicEndpointInfo]) -> None:
        if topic.endswith(_LEFT_OUT) or (_OVERLAY in topic and not self._with_overlays):
            self._refused.add(topic)
            return
        wrong = {publisher.topic_type for publisher in publishers}.difference(types)
        if wrong:
            self._warn(
                f"topic {topic}: got publishers of {', '.join(sorted(wrong))}; the policy node expects "
                f"{types[0]} and hears none of those. Fix: remap them, or set the node's parameters"
            )
        offers = [publisher.qos_profile for publisher in publishers]
        offer = TopicOffer(
            type_name=types[0],
            is_reliable=all(profile.reliability == ReliabilityPolicy.RELIABLE for profile in offers),
            is_latched=all(profile.durability == DurabilityPolicy.TRANSIENT_LOCAL for profile in offers),
        )
        try:
            kind = message_class(types[0])
            self._bag.add_topic(topic, offer)
        except LightVlaError as error:
            self._refused.add(topic)
            self._warn(f"not recorded: {error}")
            return
        self._subscriptions[topic] = MatchedSubscription(
            self._node,
            self._entities,
            kind=kind,
            topic=topic,
            callback=informed(self._writer(topic)),
            qos=qos.RECORDING,
            raw=True,
        )

    def _writer(self, topic: str) -> Callable[[bytes, dict[str, Any]], None]:
        seen: deque[tuple[int, int]] = deque(maxlen=_REMEMBERED)

        def write(data: bytes, info: dict[str, Any]) -> None:
            message = info["source_timestamp"], len(data)
            if message not in seen:
                seen.append(message)
                self._bag.write(topic, data, info["received_timestamp"])

        return write


def topics_of(node: Node, policy_node: str) -> dict[str, list[str]]:
    """Return the topics a node subscribes or publishes, each with its types; none while it is not there.

    Asked of every topic, not of the node: one that was killed is in the graph for some more seconds, and of
    two nodes of one name rclpy answers for either.
    """
    found: dict[str, list[str]] = {}
    for topic, _ in node.get_topic_names_and_types():
        ends = [*node.get_publishers_info_by_topic(topic), *node.get_subscriptions_info_by_topic(topic)]
        types = {end.topic_type for end in ends if node_of(end) == policy_node}
        if types:
            found[topic] = sorted(types)
    return found


def message_class(type_name: str) -> type[Any]:
    """Import the class of "package/msg/Name".

    Raises:
        LightVlaError: the package is not installed.
    """
    package, _, name = type_name.partition("/msg/")
    try:
        kind: type[Any] = getattr(importlib.import_module(f"{package}.msg"), name)
    except (ImportError, AttributeError) as error:
        raise LightVlaError(
            f"message type {type_name}",
            got="no such class for this Python",
            expected="the package that defines it",
            fix=f"source the workspace with {package}",
        ) from error
    return kind
