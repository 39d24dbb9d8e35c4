"""Shows a policy node what was recorded and hears what it makes of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.serialization import deserialize_message
from std_msgs.msg import Float64MultiArray, String

from lightvla_ros.core.errors import LightVlaError
from lightvla_ros.core.inference_record import InferenceRecord
from lightvla_ros.nodes import qos
from lightvla_ros.nodes.recorder import message_class
from lightvla_ros.recording.inferences import RecordedInference

_ASK_AGAIN_S = 2.0
_SPIN_TIMEOUT_S = 0.05
_RELIABLE = QoSProfile(depth=1)


class Replayer:
    """Plays the robot to a policy node that infers from every observation.

    Images keep every byte but their stamps, which become the present.

    Args:
        node: speaks and hears, in the caller's thread.
        executor: the node's.
        image_types: camera name -> type of its messages.
        check: raises when the policy node has ended.
    """

    def __init__(
        self,
        node: Node,
        executor: SingleThreadedExecutor,
        *,
        image_types: Mapping[str, str],
        check: Callable[[], None],
    ) -> None:
        self._node = node
        self._executor = executor
        self._check = check
        self._answers: dict[int, InferenceRecord] = {}
        self._told = ""
        self._status = "nothing"
        self._kinds = {name: message_class(kind) for name, kind in image_types.items()}
        self._images = {
            name: node.create_publisher(self._kinds[name], image_topic(name, kind), _RELIABLE)
            for name, kind in image_types.items()
        }
        self._state = node.create_publisher(Float64MultiArray, "robot/proprio", _RELIABLE)
        self._instruction = node.create_publisher(String, "instruction", qos.LATCHED)
        node.create_subscription(String, "policy/inference", self._on_record, qos.RECORD)
        node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)

    def ask(self, inference: RecordedInference, timeout_s: float) -> InferenceRecord:
        """Show what was inferred from, and return what is inferred from it now.

        Raises:
            LightVlaError: the policy node has ended, or does not answer in time; it says why.
        """
        asked: set[int] = set()
        deadline_s = time.monotonic() + timeout_s
        self._answers.clear()
        while time.monotonic() < deadline_s:
            asked.add(self._show(inference))
            again_s = time.monotonic() + _ASK_AGAIN_S
            while time.monotonic() < again_s:
                self._executor.spin_once(timeout_sec=_SPIN_TIMEOUT_S)
                self._check()
                for stamp_ns in asked & self._answers.keys():
                    answer = self._answers.pop(stamp_ns)
                    # What was shown first may meet a state or an instruction of before.
                    if _is_about(answer, inference.record):
                        return answer
        raise LightVlaError(
            "an inference from the recording",
            got=f"none in {timeout_s:g} s; the node says: {self._status}",
            expected="one for each that was recorded",
            fix="check that the engine fits the recording: its cameras, its state and its instruction",
        )

    def _show(self, inference: RecordedInference) -> int:
        if inference.record.instruction != self._told:
            self._told = inference.record.instruction
            self._instruction.publish(String(data=self._told))
        self._state.publish(Float64MultiArray(data=list(inference.record.state)))
        now = self._node.get_clock().now()
        for name, recorded in inference.images.items():
            message: Any = deserialize_message(recorded.data, self._kinds[name])
            message.header.stamp = now.to_msg()
            self._images[name].publish(message)
        return int(now.nanoseconds)

    def _on_record(self, message: String) -> None:
        record = InferenceRecord.from_json(message.data)
        self._answers[record.stamp_ns] = record

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            self._status = status.message


def image_topic(camera: str, type_name: str) -> str:
    """Return the topic on which the policy node expects a camera's messages of a type."""
    return f"camera/{camera}/image" + ("/compressed" if type_name.endswith("CompressedImage") else "")


def _is_about(answer: InferenceRecord, record: InferenceRecord) -> bool:
    return (answer.instruction, answer.state) == (record.instruction, record.state)
