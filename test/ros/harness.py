"""Parts of the ROS tests: a small real policy, the policy node, and an independent robot beside it."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped, TwistStamped
from numpy.typing import NDArray
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, qos_profile_sensor_data
from rclpy.time import Time
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import Float64, String
from trajectory_msgs.msg import JointTrajectory

from lightvla_ros.core.config import NodeConfig
from lightvla_ros.core.errors import EngineError, InstructionError
from lightvla_ros.core.observation import ActionChunk, Observation
from lightvla_ros.core.policy import Health, PolicySpec
from lightvla_ros.nodes.message_info import informed
from lightvla_ros.nodes.policy_node import PolicyNode

TIMEOUT_S = 20.0
CAMERAS = ("third_person", "wrist")
ACTION_NAMES = ("x", "y", "z", "rx", "ry", "rz", "gripper")
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


def wait_until(is_done: Callable[[], object], what: str) -> None:
    """Poll until it is so."""
    deadline = time.monotonic() + TIMEOUT_S
    while not is_done():
        assert time.monotonic() < deadline, f"{what}: not within {TIMEOUT_S} s"
        time.sleep(0.005)


class SteadyPolicy:
    """Wants one constant action, chosen by the instruction: "fast" 0.5, else 0.1.

    Chunks last two seconds, so that no test stops because a chunk ran out. It keeps every observation.
    """

    def __init__(self, *, proprio_dim: int = 8, fail_on: str = "") -> None:
        self.spec = PolicySpec(
            name="steady",
            backend="test",
            camera_names=CAMERAS,
            grid=(4, 4),
            chunk_size=40,
            action_names=ACTION_NAMES,
            proprio_dim=proprio_dim,
            step_period_ns=50_000_000,
        )
        self.fail_on = fail_on
        self.seen: list[Observation] = []
        self.closed = False

    @property
    def health(self) -> Health:
        return Health()

    def check_instruction(self, instruction: str) -> None:
        if len(instruction) > 100:
            raise InstructionError(
                "instruction", got=f"{len(instruction)} letters", expected="at most 100", fix="shorten it"
            )

    def predict_chunk(self, observation: Observation) -> ActionChunk:
        self.seen.append(observation)
        if self.fail_on and self.fail_on in observation.instruction:
            raise EngineError("engine", got="a failure", expected="actions", fix="call ~/reset")
        keep = np.zeros((2, 4, 4), dtype=np.bool_)
        keep[:, 0, : 1 + len(self.seen) % 4] = True
        return ActionChunk(
            actions=self.actions_for(observation),
            stamp_ns=observation.stamp_ns,
            step_period_ns=self.spec.step_period_ns,
            keep_masks=dict(zip(CAMERAS, keep, strict=True)),
            timings_ms={"vision": 1.0},
            instruction=observation.instruction,
            epoch=observation.epoch,
        )

    def actions_for(self, observation: Observation) -> NDArray[np.float32]:
        value = 0.5 if "fast" in observation.instruction else 0.1
        actions = np.full((self.spec.chunk_size, 7), value, dtype=np.float32)
        actions[:, -1] = 1.0
        return actions

    def close(self) -> None:
        self.closed = True


class Robot(Node):
    """A robot with two cameras at 20 Hz, and an ear on everything the policy node says.

    What it sends is public: a test stops a camera, spoils a message or simulates time by changing it.
    """

    def __init__(self, context: Context) -> None:
        super().__init__("robot", context=context)
        self.cameras = set(CAMERAS)
        self.size = (48, 64)
        self.pixels: NDArray[np.uint8] | None = None  # black
        self.encoding = "rgb8"
        self.fingers = [0.04, -0.04]
        self.sends_state = True
        self.sim_time_ns: int | None = None
        self.image_stamps: list[int] = []
        # With when they were sent, as DDS says: what comes late to a busy robot was not commanded late.
        self.commands: list[tuple[float, TwistStamped]] = []
        self.gripper: list[float] = []
        self.chunks: list[JointTrajectory] = []
        self.status: dict[str, str] = {}
        self.image_publishers = {
            name: self.create_publisher(Image, f"/camera/{name}/image", qos_profile_sensor_data)
            for name in CAMERAS
        }
        self._pose = self.create_publisher(PoseStamped, "/robot/eef_pose", qos_profile_sensor_data)
        self._joints = self.create_publisher(JointState, "/joint_states", qos_profile_sensor_data)
        self.clock_publisher = self.create_publisher(Clock, "/clock", 1)
        self._instruction = self.create_publisher(String, "/instruction", LATCHED)
        self.create_subscription(TwistStamped, "/policy/command", informed(self._on_command), 1000)
        self.create_subscription(Float64, "/policy/gripper", lambda m: self.gripper.append(m.data), 10)
        self.create_subscription(JointTrajectory, "/policy/action_chunk", self.chunks.append, 10)
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)
        self.timer = self.create_timer(0.05, self.step)

    def instruct(self, text: str) -> None:
        self._instruction.publish(String(data=text))

    def step(self) -> None:
        stamp = self._now()
        if self.sends_state:
            pose = PoseStamped()
            pose.header.stamp = stamp.to_msg()
            pose.pose.position.x = 0.5
            pose.pose.orientation.w = 1.0
            self._pose.publish(pose)
            joints = JointState(name=["finger_left", "finger_right"], position=list(self.fingers))
            joints.header.stamp = stamp.to_msg()
            self._joints.publish(joints)
        for name in tuple(self.cameras):  # tests change it in another thread
            self.send_image(name, stamp.nanoseconds)
        self.image_stamps.append(stamp.nanoseconds)

    def send_image(self, camera: str, stamp_ns: int) -> None:
        self.image_publishers[camera].publish(self.image(stamp_ns))

    def _now(self) -> Time:
        if self.sim_time_ns is None:
            return self.get_clock().now()
        self.sim_time_ns += 50_000_000
        now = Time(nanoseconds=self.sim_time_ns)
        self.clock_publisher.publish(Clock(clock=now.to_msg()))
        return now

    def image(self, stamp_ns: int) -> Image:
        height, width = self.size
        message = Image(height=height, width=width, encoding=self.encoding, step=3 * width)
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp_ns, 10**9)
        message.data.frombytes(bytes(height * width * 3) if self.pixels is None else self.pixels.tobytes())
        return message

    @property
    def moves(self) -> list[float]:
        """When the commands that move were sent."""
        return [sent for sent, message in self.commands if message.twist.linear.x != 0.0]

    @property
    def speeds(self) -> list[float]:
        return [message.twist.linear.x for _, message in self.commands]

    def _on_command(self, message: TwistStamped, info: Any) -> None:
        ago_s = (time.time_ns() - info["source_timestamp"]) / 1e9
        self.commands.append((time.monotonic() - ago_s, message))

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name == "lightvla_policy: policy":
                self.status = {value.key: value.value for value in status.values}


class Bench:
    """The policy node and the robot, each spinning in its own thread with its own ROS context."""

    def __init__(self, make_policy: Callable[[NodeConfig], Any], values: Mapping[str, object]) -> None:
        self._contexts = [Context(), Context()]
        for context in self._contexts:
            rclpy.init(context=context)
        overrides = [Parameter(name, value=value) for name, value in values.items()]
        self.policy: Any = None

        def keep_policy(config: NodeConfig) -> Any:
            self.policy = make_policy(config)
            return self.policy

        self.node = PolicyNode(
            make_policy=keep_policy, context=self._contexts[0], parameter_overrides=overrides
        )
        self.robot = Robot(self._contexts[1])
        self._running = True
        self._executors = [SingleThreadedExecutor(context=context) for context in self._contexts]
        for executor, node in zip(self._executors, (self.node, self.robot), strict=True):
            executor.add_node(node)
        self._threads = [
            threading.Thread(target=self._spin, args=(executor,), daemon=True) for executor in self._executors
        ]

    def spin(self) -> None:
        for thread in self._threads:
            thread.start()

    def transition(self, trigger: Callable[[], TransitionCallbackReturn]) -> bool:
        """Make a lifecycle transition in the thread that makes them in the node's own process."""
        task = self._executors[0].create_task(trigger)
        self.wait_until(task.done, "a transition")
        return bool(task.result() == TransitionCallbackReturn.SUCCESS)

    def as_robot(self, act: Callable[[], object]) -> None:
        """Do something to the robot in its own thread, which would use a publisher that is destroyed."""
        task = self._executors[1].create_task(act)
        self.wait_until(task.done, "an act of the robot")
        task.result()

    def stop_camera(self, camera: str) -> None:
        """Take a camera and its publisher away."""

        def stop() -> None:
            self.robot.cameras.discard(camera)
            self.robot.destroy_publisher(self.robot.image_publishers.pop(camera))

        self.as_robot(stop)

    def start_camera(self, camera: str, profile: QoSProfile) -> None:
        """Bring a camera back with this quality of service."""

        def start() -> None:
            topic = f"/camera/{camera}/image"
            self.robot.image_publishers[camera] = self.robot.create_publisher(Image, topic, profile)
            self.robot.cameras.add(camera)

        self.as_robot(start)

    def configure(self) -> bool:
        return self.transition(self.node.trigger_configure)

    def activate(self) -> None:
        assert self.configure()
        assert self.transition(self.node.trigger_activate)

    def deactivate(self) -> None:
        assert self.transition(self.node.trigger_deactivate)

    def wait_until(self, is_done: Callable[[], object], what: str) -> None:
        wait_until(is_done, what)

    def wait_for_motion(self) -> None:
        before = len(self.robot.moves)
        self.wait_until(lambda: len(self.robot.moves) > before + 2, "motion")

    def wait_for_stop(self, code: str) -> None:
        self.wait_until(lambda: self.reason == code, f"stop reason {code}")

    def assert_still(self, duration_s: float = 0.3) -> None:
        """Nothing that moves is commanded for a while."""
        before = len(self.robot.moves)
        deadline = time.monotonic() + duration_s
        while time.monotonic() < deadline:
            assert len(self.robot.moves) == before, "a motion was commanded"
            time.sleep(0.01)

    @property
    def reason(self) -> str | None:
        """The node's stop reason, straight from the node: diagnostics tell it once a second."""
        session = self.node.session
        reason = None if session is None else session.loop.stop_reason
        return reason.code if reason else None

    @property
    def message(self) -> str:
        session = self.node.session
        reason = None if session is None else session.loop.stop_reason
        return reason.message if reason else ""

    def close(self) -> None:
        self._running = False
        for thread in self._threads:
            if thread.is_alive():
                thread.join()
        self.node.teardown()
        for node, context in zip((self.node, self.robot), self._contexts, strict=True):
            node.destroy_node()
            rclpy.shutdown(context=context)
        # A destroyed lifecycle node stays on the graph until it is collected (its state machine holds the
        # handle), and on one machine no more than 32 participants find each other.
        del self.node, node
        gc.collect()

    def _spin(self, executor: SingleThreadedExecutor) -> None:
        while self._running:
            executor.spin_once(timeout_sec=0.05)
        executor.shutdown()


def call(bench: Bench, kind: type, name: str, request: object) -> Any:
    """Call a service of the policy node from the robot."""
    client = bench.robot.create_client(kind, name)
    bench.wait_until(client.service_is_ready, name)
    answers: list[Any] = []

    def ask() -> bool:
        # Asked again: an answer is lost when the server has not discovered the client's ear yet.
        future = client.call_async(request)
        future.add_done_callback(lambda done: answers.append(done.result()))
        deadline = time.monotonic() + 2.0
        while not answers and time.monotonic() < deadline:
            time.sleep(0.005)
        return bool(answers)

    bench.wait_until(ask, name)
    return answers[0]
