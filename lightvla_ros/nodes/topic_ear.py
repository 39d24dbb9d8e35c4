"""An ear on a topic that anybody may publish, of any type, or nobody."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from rclpy.node import Node

from lightvla_ros.nodes.entities import Entities
from lightvla_ros.nodes.matched_subscription import MatchedSubscription
from lightvla_ros.nodes.qos import MatchedQos
from lightvla_ros.nodes.topics import describe_publishers

# name of a message type -> its class, what takes its messages
Handlers: TypeAlias = Mapping[str, tuple[type[Any], Callable[[Any], None]]]


class TopicEar:
    """Hear a topic as the type its publishers have, among those that are understood.

    Nothing is subscribed before there is such a publisher: rclpy refuses a second type on a topic.

    Args:
        node: hears.
        topic: full name of the topic.
        handlers: what is understood; the first that is published is heard.
        wanted: quality of service to ask for.
        on_problem: is told at each look what is wrong with the topic, "" when nothing is.
        on_error: takes what a handler raises, in the thread of the callbacks.
    """

    def __init__(
        self,
        node: Node,
        topic: str,
        *,
        handlers: Handlers,
        wanted: MatchedQos,
        on_problem: Callable[[str], None],
        on_error: Callable[[Exception], None],
    ) -> None:
        self.topic = topic
        self._node, self._handlers, self._wanted = node, handlers, wanted
        self._on_problem, self._on_error = on_problem, on_error
        self._entities = Entities(node)
        self._type_name = ""
        self._subscription: MatchedSubscription | None = None

    def watch(self) -> None:
        """Look who publishes what; to be called a few times a second, in the thread of the callbacks."""
        types = {info.topic_type for info in self._node.get_publishers_info_by_topic(self.topic)}
        type_name = next((name for name in self._handlers if name in types), None)
        self._on_problem(self._problem(types))
        # Publishers that are gone may come back: until then the old subscription waits for them.
        if type_name is not None and type_name != self._type_name:
            self._forget()
            self._subscribe(type_name)
        if self._subscription is not None:
            self._subscription.match()

    def close(self) -> None:
        """Stop listening; what was wrong with the topic matters no more."""
        self._forget()
        self._on_problem("")

    def _forget(self) -> None:
        self._entities.destroy()
        self._subscription, self._type_name = None, ""

    def _subscribe(self, type_name: str) -> None:
        kind, handle = self._handlers[type_name]

        def on_message(message: Any) -> None:
            try:
                handle(message)
            except Exception as error:  # noqa: BLE001  # whatever others publish must not end the panel
                self._on_error(error)

        self._subscription = MatchedSubscription(
            self._node, self._entities, kind=kind, topic=self.topic, callback=on_message, qos=self._wanted
        )
        self._type_name = type_name

    def _problem(self, types: set[str]) -> str:
        if not types:
            return f"nobody publishes {self.topic}"
        if not types.difference(self._handlers):
            return ""
        return (
            f"{describe_publishers(self._node, self.topic)}; expected {' or '.join(self._handlers)}. "
            "Fix: stop or remap the others"
        )
