"""Publishers and subscriptions with one owner, so that they can be freed together."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile
from rclpy.subscription import Subscription


class Entities:
    """What one owner created on a node."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._publishers: list[Publisher[Any]] = []
        self._subscriptions: list[Subscription[Any]] = []

    def publisher(self, kind: type[Any], topic: str, profile: QoSProfile) -> Publisher[Any]:
        """Create a publisher."""
        publisher = self._node.create_publisher(kind, topic, profile)
        self._publishers.append(publisher)
        return publisher

    def subscription(
        self,
        kind: type[Any],
        topic: str,
        callback: Callable[..., None],
        profile: QoSProfile,
        events: Any = None,
        *,
        raw: bool = False,
    ) -> Subscription[Any]:
        """Create a subscription.

        Args:
            kind: message type.
            topic: topic name.
            callback: takes each message, and where it has a second parameter the message's info.
            profile: quality of service to ask for.
            events: without them, publishers that offer less than it asks for are logged.
            raw: hand over bytes in CDR, not messages.
        """
        subscription = self._node.create_subscription(
            kind, topic, callback, profile, event_callbacks=events, raw=raw
        )
        self._subscriptions.append(subscription)
        return subscription

    def destroy_subscription(self, subscription: Subscription[Any]) -> None:
        """Destroy one subscription before the others."""
        self._subscriptions.remove(subscription)
        self._node.destroy_subscription(subscription)

    def destroy(self) -> None:
        """Destroy them all; harmless when there are none."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        for publisher in self._publishers:
            self._node.destroy_publisher(publisher)
        self._subscriptions, self._publishers = [], []
