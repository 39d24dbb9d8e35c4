"""The panel's link to the ROS graph: hears what is shown, says what is asked for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from numpy.typing import NDArray
from rclpy.clock import Clock, ClockType  # type: ignore[attr-defined]  # where all distributions have it
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String

from lightvla_ros.nodes import qos
from lightvla_ros.nodes.conversions import image_from_compressed, image_from_message, stamp_ns
from lightvla_ros.nodes.diagnostics import statuses_in
from lightvla_ros.nodes.panel_voice import PanelVoice
from lightvla_ros.nodes.topic_ear import Handlers, TopicEar
from lightvla_ros.view.panel_model import PanelModel
from lightvla_ros.view.panel_state import Mode, Wanted

WATCH_PERIOD_S = 0.25
_DIAGNOSTICS = "/diagnostics"
_STRING = "std_msgs/msg/String"


class PanelLink:
    """Feeds a `PanelModel` from a node that somebody else spins, and carries out a `Panel`'s commands.

    Messages and looks at the graph come in the executor's thread, commands and the end in another.

    Args:
        node: hears and speaks; it lives on when the link is closed.
        model: takes what is heard.
    """

    def __init__(self, node: Node, model: PanelModel) -> None:
        self._node, self._model = node, model
        self._lock = threading.RLock()
        self._is_closed = False
        self._pictures: dict[str, TopicEar] = {}
        self._records: TopicEar | None = None
        self._wanted = Wanted(node="", mode=model.mode)
        self._voice = PanelVoice(node, model)
        self._diagnostics = self._ear(
            _DIAGNOSTICS, {"diagnostic_msgs/msg/DiagnosticArray": (DiagnosticArray, self._on_diagnostics)}
        )
        # A node with simulated time would not look while that stands still.
        self._timer = node.create_timer(
            WATCH_PERIOD_S, self.watch, clock=Clock(clock_type=ClockType.STEADY_TIME)
        )

    def watch(self) -> None:
        """Follow what the panel shows, and the publishers of it."""
        with self._lock:
            if self._is_closed:
                return
            wanted = self._model.wanted()
            if wanted != self._wanted:
                self._follow(wanted)
            for ear in self._ears:
                self._safely(ear.topic, ear.watch)
            self._safely("commands", lambda: self._voice.watch(wanted.node))

    def instruct(self, text: str) -> None:
        """Publish an instruction at once."""
        with self._lock:
            self._voice.instruct(text)

    def enable(self, *, enabled: bool) -> None:
        """Call the node's enable service; what it answers goes to the model."""
        with self._lock:
            self._voice.enable(enabled=enabled)

    def reset(self) -> None:
        """Call the node's reset service; what it answers goes to the model."""
        with self._lock:
            self._voice.reset()

    def close(self) -> None:
        """Leave the node as it was before."""
        with self._lock:
            self._is_closed = True
            self._node.destroy_timer(self._timer)
            for ear in self._ears:
                ear.close()
            self._voice.close()

    @property
    def _ears(self) -> list[TopicEar]:
        return [*filter(None, (self._diagnostics, self._records)), *self._pictures.values()]

    def _safely(self, source: str, look: Callable[[], None]) -> None:
        """Turn whatever a look at the graph raises into something to show: others go on."""
        try:
            look()
        except Exception as error:  # noqa: BLE001  # rclpy raises another class in every distribution
            self._model.tell(source, f"{source}: {error}")

    def _follow(self, wanted: Wanted) -> None:
        """Hear what is shown now and no longer what was shown before."""
        before, self._wanted = self._wanted, wanted
        if (wanted.node, wanted.records) != (before.node, before.records):
            if self._records is not None:
                self._records.close()
            handlers = {_STRING: (String, self._on_record(wanted.node))}
            self._records = self._ear(wanted.records, handlers) if wanted.records else None
        kept = wanted.pictures.items() if (wanted.node, wanted.mode) == (before.node, before.mode) else ()
        for camera, ear in tuple(self._pictures.items()):
            if (camera, ear.topic) not in kept:
                self._pictures.pop(camera).close()
        for camera, topic in wanted.pictures.items():
            if camera not in self._pictures:
                self._pictures[camera] = self._picture_ear(wanted.node, camera, wanted.mode, topic)

    def _ear(self, topic: str, handlers: Handlers) -> TopicEar:
        source = f"messages on {topic}"
        return TopicEar(
            self._node,
            topic,
            handlers=handlers,
            wanted=qos.OBSERVED,
            on_problem=lambda problem: self._model.tell(topic, problem),
            on_error=lambda error: self._model.tell(source, f"{topic}: {error}"),
        )

    def _picture_ear(self, node: str, camera: str, mode: Mode, topic: str) -> TopicEar:
        def take(convert: Callable[[Any], NDArray[np.uint8]], message: Any) -> None:
            image = convert(message)
            stamp = stamp_ns(message.header.stamp)
            self._model.hear_picture(node, camera, mode, image, stamp_ns=stamp, now_s=time.monotonic())

        def refuse(error: Exception) -> None:
            self._model.hear_bad_picture(node, camera, mode, f"{topic}: {error}", time.monotonic())

        return TopicEar(
            self._node,
            topic,
            handlers={
                "sensor_msgs/msg/Image": (Image, lambda message: take(image_from_message, message)),
                "sensor_msgs/msg/CompressedImage": (
                    CompressedImage,
                    lambda message: take(image_from_compressed, message),
                ),
            },
            wanted=qos.CAMERA["auto"],
            on_problem=lambda problem: self._model.tell(topic, problem),
            on_error=refuse,
        )

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        now_s = time.monotonic()
        for name, level, text, values in statuses_in(message):
            self._model.hear_status(name, level, text, values, now_s)

    def _on_record(self, node: str) -> Callable[[String], None]:
        return lambda message: self._model.hear_record(node, message.data, time.monotonic())
