"""What the panel says to a policy node: instructions, the enable switch and resets."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

from rclpy.client import Client
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.task import Future
from std_msgs.msg import String
from std_srvs.srv import SetBool, Trigger

from lightvla_ros.nodes import qos
from lightvla_ros.nodes.entities import Entities
from lightvla_ros.view.panel_model import PanelModel

_ANSWER_TIMEOUT_S = 3.0
_STRING = "std_msgs/msg/String"


class _Question(NamedTuple):
    """A call of a service that was not answered yet."""

    client: Client[Any, Any]
    future: Future[Any]
    since_s: float


class PanelVoice:
    """Speaks to one policy node at a time. Not thread safe: the owner locks.

    Args:
        node: speaks.
        model: is told what came of it.
    """

    def __init__(self, node: Node, model: PanelModel) -> None:
        self._node, self._model = node, model
        self._entities = Entities(node)
        self._policy_node = ""
        self._topic = ""
        self._publisher: Publisher[String] | None = None
        self._enable: Client[Any, Any] | None = None
        self._reset: Client[Any, Any] | None = None
        self._asked: _Question | None = None  # last

    def watch(self, policy_node: str) -> None:
        """Be ready to speak to a node, "" for none; to be called a few times a second."""
        if policy_node != self._policy_node:
            self.close()
            self._policy_node = policy_node
            if policy_node:
                self._enable = self._node.create_client(SetBool, f"{policy_node}/enable")
                self._reset = self._node.create_client(Trigger, f"{policy_node}/reset")
        if policy_node:
            self._publish_on(self._instruction_topic())
        self._watch_answer()
        self._model.tell("commands", "")

    def instruct(self, text: str) -> None:
        """Publish an instruction."""
        if self._publisher is None:
            self._model.answer("not sent: no policy node was heard yet")
            return
        self._publisher.publish(String(data=text))
        what = f"sent {text!r}" if text else "sent the empty instruction: stop"
        listeners = self._publisher.get_subscription_count()
        unheard = "" if listeners else ", but nobody listens there. Fix: configure the node"
        self._model.answer(f"{what} on {self._topic}{unheard}")

    def enable(self, *, enabled: bool) -> None:
        """Call the enable service without waiting for it."""
        self._ask("enable", self._enable, SetBool.Request(data=enabled), enabled=enabled)

    def reset(self) -> None:
        """Call the reset service without waiting for it."""
        self._ask("reset", self._reset, Trigger.Request())

    def close(self) -> None:
        """Leave nothing on the node."""
        self._entities.destroy()
        for client in filter(None, (self._enable, self._reset)):
            self._node.destroy_client(client)
        self._enable = self._reset = self._publisher = self._asked = None
        self._topic = ""

    def _ask(
        self, name: str, client: Client[Any, Any] | None, request: Any, *, enabled: bool | None = None
    ) -> None:
        service = f"{self._policy_node}/{name}"
        if client is None or not client.service_is_ready():
            self._model.answer(f"there is no service {service}. Fix: see whether the node runs")
            return
        future = client.call_async(request)
        self._asked = _Question(client, future, time.monotonic())
        self._model.answer(f"{service}: asked")
        future.add_done_callback(lambda done: self._on_answer(service, done, enabled=enabled))

    def _publish_on(self, topic: str) -> None:
        if topic != self._topic:
            self._entities.destroy()
            self._topic, self._publisher = topic, self._entities.publisher(String, topic, qos.LATCHED)

    def _instruction_topic(self) -> str:
        """Return the one topic of texts that the node hears, whatever it was remapped to."""
        namespace, _, name = self._policy_node.rpartition("/")
        try:
            heard = self._node.get_subscriber_names_and_types_by_node(name, namespace or "/")
        except Exception:  # noqa: BLE001  # rclpy raises another class in every distribution
            heard = []
        topics = [topic for topic, types in heard if _STRING in types]
        return topics[0] if len(topics) == 1 else self._topic or f"{namespace}/instruction"

    def _on_answer(self, service: str, done: Future[Any], *, enabled: bool | None) -> None:
        """Tell what the service said; in the executor's thread."""
        try:
            answer = done.result()
        except Exception as error:  # noqa: BLE001  # whatever went wrong is the answer
            self._model.answer(f"{service}: {error}")
            return
        if answer is None:
            return  # given up
        verdict = answer.message or ("done" if answer.success else "refused")
        self._model.answer(f"{service}: {verdict}", enabled=enabled if answer.success else None)

    def _watch_answer(self) -> None:
        if self._asked is None:
            return
        client, future, since_s = self._asked
        if future.done():
            self._asked = None
        elif time.monotonic() - since_s > _ANSWER_TIMEOUT_S:
            self._asked = None
            client.remove_pending_request(future)
            self._model.answer(f"{client.srv_name}: no answer in {_ANSWER_TIMEOUT_S:g} s")
