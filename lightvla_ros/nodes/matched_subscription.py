"""A subscription that asks for what its topic's publishers offer.

ROS joins a subscription only with publishers that offer at least what it asks for, and is silent about
the others. Asking for little hears everybody but loses what was not heard at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSCompatibility, QoSProfile, qos_check_compatible
from rclpy.subscription import Subscription

from lightvla_ros.nodes.entities import Entities
from lightvla_ros.nodes.qos import MatchedQos

if TYPE_CHECKING:
    from rclpy.topic_endpoint_info import TopicEndpointInfo  # elsewhere in Lyrical

try:
    from rclpy.event_handler import SubscriptionEventCallbacks
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks

_OVERLAP_LOOKS = 5


class MatchedSubscription:
    """Hear every publisher of a topic, each as reliably as all of them allow.

    A former subscription lives for some more looks, until the present one has found the publishers.
    Meanwhile a message may come twice, but none is lost.

    Args:
        node: asked who publishes.
        entities: owns the subscription.
        kind: message type.
        topic: topic name.
        callback: takes each message.
        qos: what to ask for.
        raw: see `Entities.subscription`.
    """

    def __init__(
        self,
        node: Node,
        entities: Entities,
        *,
        kind: type[Any],
        topic: str,
        callback: Callable[..., None],
        qos: MatchedQos,
        raw: bool = False,
    ) -> None:
        self._node, self._entities = node, entities
        self._kind, self._callback, self._qos, self._raw = kind, callback, qos, raw
        self._looks = 0
        self._former: deque[tuple[int, Subscription[Any]]] = deque()
        self._subscription = self._subscribe(topic, qos.unmatched)
        self.topic = str(self._subscription.topic_name)
        self.profile = qos.unmatched
        if qos.always is not None:
            self._subscribe(topic, qos.always)

    def match(self) -> None:
        """Follow the publishers; to be called a few times a second, in the thread of the callbacks."""
        self._retire()
        wanted = self._wanted(self._node.get_publishers_info_by_topic(self.topic))
        if wanted is not self.profile:
            self._former.append((self._looks + _OVERLAP_LOOKS, self._subscription))
            self._subscription, self.profile = self._subscribe(self.topic, wanted), wanted

    def _subscribe(self, topic: str, profile: QoSProfile) -> Subscription[Any]:
        # A publisher that does not fit is not worth a warning where the next look makes it fit.
        is_final = len(self._qos.choices) == 1
        events = SubscriptionEventCallbacks(use_default_callbacks=is_final)
        return self._entities.subscription(self._kind, topic, self._callback, profile, events, raw=self._raw)

    def _retire(self) -> None:
        self._looks += 1
        while self._former and self._former[0][0] <= self._looks:
            self._entities.destroy_subscription(self._former.popleft()[1])

    def _wanted(self, publishers: Sequence[TopicEndpointInfo]) -> QoSProfile:
        if not publishers:
            return self._qos.unmatched
        for profile in self._qos.choices:
            # To a new subscription that asks for kept messages, an old one comes again, maybe after newer
            # ones of other publishers: an instruction that somebody has stopped since would be resumed.
            repeats = profile.durability != DurabilityPolicy.VOLATILE and profile is not self.profile
            if not repeats and all(_offers(publisher, profile) for publisher in publishers):
                return profile
        return self._qos.choices[-1]


def _offers(publisher: TopicEndpointInfo, profile: QoSProfile) -> bool:
    return qos_check_compatible(publisher.qos_profile, profile)[0] == QoSCompatibility.OK
