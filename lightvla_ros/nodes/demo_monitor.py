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
from rclpy.qos import QoSProfile, ReliabilityPolicy, qos_profile_sensor_data
from sensor_msgs.msg import Image
from std_msgs.msg import String
from std_srvs.srv import Trigger
from trajectory_msgs.msg import JointTrajectory

from lightvla_ros.core.errors import LightVlaError
from lightvla_ros.nodes.sim_node import LATCHED, SIM_NODE_NAME

if TYPE_CHECKING:
    from rclpy.subscription import MessageInfo

CAMERAS = ("third_person", "wrist")
POLICY_NODE = "lightvla_policy"
# Small and not to be missed, however busy this thread is.
MASKS = QoSProfile(depth=200, reliability=ReliabilityPolicy.BEST_EFFORT)
# Stamps kept while their masks are awaited: two seconds of a 20 Hz camera.
KEPT_STAMPS = 40


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MaskedFrame:
    """Both camera images of one stamp with the patches retained of them."""

    images: dict[str, NDArray[np.uint8]]
    keep_masks: dict[str, NDArray[np.bool_]]

    @property
    def num_retained(self) -> int:
        """Visual tokens retained over both cameras."""
        return sum(int(mask.sum()) for mask in self.keep_masks.values())

    @property
    def num_visual_tokens(self) -> int:
        """Visual tokens over both cameras before pruning."""
        return sum(mask.size for mask in self.keep_masks.values())


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
        on_frame: takes each pair of images with what was retained of it; None leaves the images unheard.

    Attributes:
        status: newest `~/status` of the world.
        diagnostics: newest key -> value of the policy node.
        chunks, commands: rates of the policy's two topics while it acts.
        retained: retained tokens of every frame seen.
        stamps_ns: the frames' stamps.
        num_visual_tokens: tokens before pruning; 0 before the first frame.
    """

    def __init__(self, on_frame: Callable[[MaskedFrame], None] | None) -> None:
        super().__init__("lightvla_demo")
        self.status: dict[str, Any] = {}
        self.diagnostics: dict[str, str] = {}
        self.chunks = WatchedRate()
        self.commands = WatchedRate()
        self.retained: list[int] = []
        self.stamps_ns: list[int] = []
        self.num_visual_tokens = 0
        self.is_acting = False
        self._on_frame = on_frame
        self._images: dict[int, dict[str, NDArray[np.uint8]]] = {}
        self._masks: dict[int, dict[str, NDArray[np.bool_]]] = {}
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self)

        self._instruction = self.create_publisher(String, "/instruction", LATCHED)
        self._set_parameters: Client[Any, Any] = self.create_client(
            SetParameters, f"/{SIM_NODE_NAME}/set_parameters"
        )
        self._reset: Client[Any, Any] = self.create_client(Trigger, f"/{SIM_NODE_NAME}/reset")
        self._get_state: Client[Any, Any] = self.create_client(GetState, f"/{POLICY_NODE}/get_state")
        self.create_subscription(String, f"/{SIM_NODE_NAME}/status", self._on_status, LATCHED)
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)
        self.create_subscription(JointTrajectory, "/policy/action_chunk", self._on_chunk, 10)
        self.create_subscription(TwistStamped, "/policy/command", self._on_command, 10)
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
        answer = self._call(self._set_parameters, request, timeout_s)
        for result in answer.results if answer is not None else []:
            if not result.successful:
                raise LightVlaError("the world refuses the task", got=result.reason)
        reset = self._call(self._reset, Trigger.Request(), timeout_s)
        if answer is None or reset is None or not reset.success:
            raise LightVlaError(
                "the world did not reset",
                got="no answer" if reset is None else reset.message,
                expected=f"an answer of {SIM_NODE_NAME} within {timeout_s:g} s",
            )
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
            self._remember(self._images, message, camera, _pixels(message, 3))

        def on_mask(message: Image) -> None:
            self._remember(self._masks, message, camera, _pixels(message, 1)[..., 0] > 0)
            self._complete(_stamp_ns(message))

        if self._on_frame is not None:
            self.create_subscription(Image, f"/camera/{camera}/image", on_image, qos_profile_sensor_data)
        self.create_subscription(Image, f"/policy/retained_tokens/{camera}", on_mask, MASKS)

    def _remember(
        self, frames: dict[int, dict[str, NDArray[Any]]], message: Image, camera: str, pixels: NDArray[Any]
    ) -> None:
        frames.setdefault(_stamp_ns(message), {})[camera] = pixels
        while len(frames) > KEPT_STAMPS:
            del frames[next(iter(frames))]

    def _complete(self, stamp_ns: int) -> None:
        """Hand out the frame of `stamp_ns` once its last mask is there."""
        masks = self._masks.get(stamp_ns, {})
        if len(masks) < len(CAMERAS):
            return
        frame = MaskedFrame(images=self._images.get(stamp_ns, {}), keep_masks=masks)
        del self._masks[stamp_ns]
        self.retained.append(frame.num_retained)
        self.stamps_ns.append(stamp_ns)
        self.num_visual_tokens = frame.num_visual_tokens
        if self._on_frame is not None and self.is_acting and len(frame.images) == len(CAMERAS):
            self._on_frame(frame)

    def _on_status(self, message: String) -> None:
        status = json.loads(message.data)
        if status["episode"] >= self.status.get("episode", 0):
            self.status = status

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if POLICY_NODE in status.name or POLICY_NODE in status.hardware_id:
                self.diagnostics.update({item.key: item.value for item in status.values})

    # The time of sending, not of arrival: drawing keeps this thread busy now and then.
    def _on_chunk(self, _message: JointTrajectory, info: MessageInfo) -> None:
        if self.is_acting:
            self.chunks.tick(info["source_timestamp"])

    def _on_command(self, _message: TwistStamped, info: MessageInfo) -> None:
        if self.is_acting:
            self.commands.tick(info["source_timestamp"])


def _stamp_ns(message: Image) -> int:
    return int(message.header.stamp.sec) * 1_000_000_000 + int(message.header.stamp.nanosec)


def _pixels(message: Image, channels: int) -> NDArray[np.uint8]:
    rows = np.frombuffer(message.data, dtype=np.uint8).reshape(message.height, message.step)
    return rows[:, : message.width * channels].reshape(message.height, message.width, channels)
