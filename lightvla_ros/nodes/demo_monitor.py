"""What `lightvla demo` sees and says over ROS: an observer that knows only topics and services."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import TwistStamped
from lifecycle_msgs.srv import GetState
from numpy.typing import NDArray
from rcl_interfaces.srv import SetParameters
from rclpy.client import Client
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image
from std_msgs.msg import String
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from lightvla_ros.core.errors import LightVlaError
from lightvla_ros.core.inference_record import InferenceRecord
from lightvla_ros.nodes import qos
from lightvla_ros.nodes.conversions import image_from_message, stamp_ns
from lightvla_ros.nodes.diagnostics import statuses_in
from lightvla_ros.nodes.message_info import informed
from lightvla_ros.nodes.sim_node import SIM_NODE_NAME
from lightvla_ros.sim.world import CAMERAS
from lightvla_ros.view.policy_status import DEFAULT_NODE, node_of

if TYPE_CHECKING:
    from rclpy.subscription import MessageInfo

# Images kept while the inference from them is awaited: two seconds of a 20 Hz camera.
KEPT_STAMPS = 40


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SeenInference:
    """An inference and the images it was made from."""

    record: InferenceRecord
    images: dict[str, NDArray[np.uint8]]


@dataclass(slots=True)
class WatchedRate:
    """Mean rate of a topic over the stretches it was watched."""

    intervals: int = 0
    duration_ns: int = 0
    _last_ns: int | None = None

    def tick(self, sent_ns: int) -> None:
        """Count a message that was sent at `sent_ns`."""
        if self._last_ns is not None:
            self.intervals += 1
            self.duration_ns += sent_ns - self._last_ns
        self._last_ns = sent_ns

    def pause(self) -> None:
        """Leave out the time until the next message."""
        self._last_ns = None

    @property
    def hz(self) -> float:
        """Messages per second; 0 before the second message."""
        return self.intervals * 1e9 / self.duration_ns if self.duration_ns > 0 else 0.0


class DemoMonitor(Node):
    """Watch a policy act in a simulated world, and pose it tasks.

    Everything runs in the caller's thread: messages are taken in while one of the waiting methods runs.

    Args:
        on_inference: takes each inference with its images; None leaves the images unheard.

    Attributes:
        status: newest `~/status` of the world.
        diagnostics: newest key -> value of the policy node.
        chunks, commands: rates of the policy's two topics while it acts.
        retained: retained tokens of every inference heard of.
        stamps_ns: the inferences' stamps.
        num_visual_tokens: tokens before pruning; 0 before the first inference.
    """

    def __init__(self, on_inference: Callable[[SeenInference], None] | None) -> None:
        super().__init__("lightvla_demo")
        self.status: dict[str, Any] = {}
        self.diagnostics: dict[str, str] = {}
        self.chunks = WatchedRate()
        self.commands = WatchedRate()
        self.retained: list[int] = []
        self.stamps_ns: list[int] = []
        self.num_visual_tokens = 0
        self.is_acting = False
        self._on_inference = on_inference
        self._images: dict[int, dict[str, NDArray[np.uint8]]] = {}
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self)

        self._instruction = self.create_publisher(String, "/instruction", qos.LATCHED)
        self._set_task: Client[Any, Any] = self.create_client(
            SetParameters, f"/{SIM_NODE_NAME}/set_parameters"
        )
        self._reset: Client[Any, Any] = self.create_client(Trigger, f"/{SIM_NODE_NAME}/reset")
        self._get_state: Client[Any, Any] = self.create_client(GetState, f"{DEFAULT_NODE}/get_state")
        self.create_subscription(String, f"/{SIM_NODE_NAME}/status", self._on_status, qos.LATCHED)
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)
        self.create_subscription(JointTrajectory, "/policy/action_chunk", informed(self._on_chunk), 10)
        self.create_subscription(TwistStamped, "/policy/command", informed(self._on_command), 10)
        self.create_subscription(String, "/policy/inference", self._on_record, qos.RECORD)
        if on_inference is not None:
            for camera in CAMERAS:
                self._watch_camera(camera)

    def wait_until(self, is_done: Callable[[], bool], timeout_s: float) -> bool:
        """Take in messages until `is_done()` or the time is up; return whether it is done."""
        deadline_s = time.monotonic() + timeout_s
        while not is_done():
            if time.monotonic() > deadline_s:
                return False
            self._executor.spin_once(timeout_sec=0.05)
        return True

    def policy_state(self, timeout_s: float = 1.0) -> str:
        """Return the policy node's lifecycle state, "" when it does not answer."""
        response = self._call(self._get_state, GetState.Request(), timeout_s)
        return "" if response is None else str(response.current_state.label)

    def start_episode(self, instruction: str, seed: int, timeout_s: float = 15.0) -> None:
        """Reset the world to a task; the policy has to be told by `instruct`.

        Raises:
            LightVlaError: the world refuses or does not answer.
        """
        task: list[Parameter[Any]] = [
            Parameter("instruction", value=instruction),
            Parameter("seed", value=seed),
        ]
        request = SetParameters.Request(parameters=[parameter.to_parameter_msg() for parameter in task])
        answer = self._call(self._set_task, request, timeout_s)
        for result in answer.results if answer is not None else []:
            if not result.successful:
                raise LightVlaError("the world refuses the task", got=result.reason)
        reset = self._call(self._reset, Trigger.Request(), timeout_s)
        if answer is None or reset is None:
            what = "did not take the task" if answer is None else "did not reset"
            raise LightVlaError(
                f"the world {what}",
                got="no answer",
                expected=f"an answer of {SIM_NODE_NAME} within {timeout_s:g} s",
            )
        if not reset.success:
            raise LightVlaError("the world did not reset", got=reset.message)
        self.status = json.loads(reset.message)

    def instruct(self, instruction: str) -> None:
        """Tell the policy what to do."""
        self.is_acting = True
        self._instruction.publish(String(data=instruction))

    def end_episode(self) -> None:
        """Stop the policy with an empty instruction."""
        self._instruction.publish(String(data=""))
        self.is_acting = False
        self.chunks.pause()
        self.commands.pause()

    def close(self) -> None:
        """Leave the graph."""
        self._executor.shutdown()
        self.destroy_node()

    def _call(self, client: Client[Any, Any], request: Any, timeout_s: float) -> Any:
        if not self.wait_until(client.service_is_ready, timeout_s):
            return None
        future = client.call_async(request)
        if not self.wait_until(future.done, timeout_s):
            client.remove_pending_request(future)
            return None
        return future.result()

    def _watch_camera(self, camera: str) -> None:
        def on_image(message: Image) -> None:
            self._images.setdefault(stamp_ns(message.header.stamp), {})[camera] = image_from_message(message)
            while len(self._images) > KEPT_STAMPS:
                del self._images[next(iter(self._images))]

        self.create_subscription(Image, f"/camera/{camera}/image", on_image, qos_profile_sensor_data)

    def _on_record(self, message: String) -> None:
        record = InferenceRecord.from_json(message.data)
        self.retained.append(record.num_retained)
        self.stamps_ns.append(record.stamp_ns)
        self.num_visual_tokens = record.num_visual_tokens
        images = self._images.get(record.stamp_ns, {})
        if self._on_inference is not None and self.is_acting and len(images) == len(CAMERAS):
            self._on_inference(SeenInference(record=record, images=images))

    def _on_status(self, message: String) -> None:
        status = json.loads(message.data)
        if status["episode"] >= self.status.get("episode", 0):
            self.status = status

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for name, _, _, values in statuses_in(message):
            if node_of(name) == DEFAULT_NODE:
                self.diagnostics.update(values)

    # The time of sending, not of arrival: drawing keeps this thread busy now and then.
    def _on_chunk(self, _message: JointTrajectory, info: MessageInfo) -> None:
        if self.is_acting:
            self.chunks.tick(info["source_timestamp"])

    def _on_command(self, _message: TwistStamped, info: MessageInfo) -> None:
        if self.is_acting:
            self.commands.tick(info["source_timestamp"])
