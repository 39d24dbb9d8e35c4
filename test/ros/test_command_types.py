"""Each command type as a controller hears it: what moves, and what stands still when an action is missing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import rclpy
from geometry_msgs.msg import PoseStamped
from harness import Bench, wait_until
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory

MakeBench = Callable[..., Bench]
# SteadyPolicy wants 0.1 in every dimension; a step of LIBERO scales that to 5 mm and 0.05 rad.
ACTION = 0.1
DEPTH = 10


class Controller:
    """A listener of its own: within one context a topic has one type, and the robot's is a twist."""

    def __init__(self) -> None:
        self._context = Context()
        rclpy.init(context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._node = Node("controller", context=self._context)
        self._executor.add_node(self._node)
        self.heard: list[Any] = []

    def listen(self, kind: type) -> None:
        self._node.create_subscription(kind, "/policy/command", self.heard.append, DEPTH)

    def wait_for(self, number: int) -> Any:
        """Wait for further commands; returns the last."""
        wanted = len(self.heard) + number

        def spun() -> bool:
            self._executor.spin_once(timeout_sec=0.05)
            return len(self.heard) >= wanted

        wait_until(spun, "commands")
        return self.heard[-1]

    def close(self) -> None:
        self._executor.shutdown()
        self._node.destroy_node()
        rclpy.shutdown(context=self._context)


@pytest.fixture
def controller() -> Iterator[Controller]:
    controller = Controller()
    yield controller
    controller.close()


def start(make_bench: MakeBench, controller: Controller, kind: type, **parameters: object) -> Bench:
    controller.listen(kind)
    bench = make_bench(enable_actuation=True, **parameters)
    bench.activate()
    bench.robot.instruct("go")
    return bench


def hold(bench: Bench, controller: Controller) -> Any:
    """Stop the robot by losing a camera; returns what it is told then."""
    bench.robot.cameras.discard("wrist")
    bench.wait_for_stop("stale:wrist")
    return controller.wait_for(DEPTH + 3)  # the queue still has what came before


def test_pose_targets_are_a_step_ahead_of_the_measured_pose(
    make_bench: MakeBench, controller: Controller
) -> None:
    bench = start(make_bench, controller, PoseStamped, command__type="pose")
    message = controller.wait_for(4)
    pose = message.pose
    assert message.header.frame_id == "base_link"
    np.testing.assert_allclose([pose.position.x, pose.position.y, pose.position.z], [0.505, 0.005, 0.005])
    angle = 0.05 * np.sqrt(3)
    np.testing.assert_allclose(pose.orientation.w, np.cos(angle / 2), atol=1e-7)
    held = hold(bench, controller).pose
    np.testing.assert_allclose([held.position.x, held.position.y, held.orientation.w], [0.5, 0.0, 1.0])


def test_pose_targets_stay_inside_the_workspace(make_bench: MakeBench, controller: Controller) -> None:
    box = {"command__workspace_min_m": [-1.0, -1.0, -1.0], "command__workspace_max_m": [0.502, 1.0, 1.0]}
    start(make_bench, controller, PoseStamped, command__type="pose", **box)
    assert controller.wait_for(4).pose.position.x == pytest.approx(0.502)


@pytest.mark.parametrize(("how", "expected"), [("zero", 0.0), ("last", ACTION)])
def test_forwarded_actions_hold_zero_or_the_last_one(
    make_bench: MakeBench, controller: Controller, how: str, expected: float
) -> None:
    bench = start(make_bench, controller, Float64MultiArray, command__type="forward", command__hold=how)
    np.testing.assert_allclose(controller.wait_for(4).data, [ACTION] * 6, rtol=1e-6)
    np.testing.assert_allclose(hold(bench, controller).data, [expected] * 6, rtol=1e-6)


def test_a_trajectory_point_names_its_joints_and_is_due_one_step_from_now(
    make_bench: MakeBench, controller: Controller
) -> None:
    joints = [f"panda_joint{i}" for i in range(1, 7)]
    parameters = {"command__type": "trajectory", "command__joint_names": joints, "command__hold": "last"}
    bench = start(make_bench, controller, JointTrajectory, **parameters)
    message = controller.wait_for(4)
    assert list(message.joint_names) == joints
    assert (message.header.stamp.sec, message.header.stamp.nanosec) == (0, 0)
    (point,) = message.points
    np.testing.assert_allclose(point.positions, [ACTION] * 6, rtol=1e-6)
    assert (point.time_from_start.sec, point.time_from_start.nanosec) == (0, 50_000_000)
    np.testing.assert_allclose(hold(bench, controller).points[0].positions, [ACTION] * 6, rtol=1e-6)


def test_joint_names_that_do_not_fit_the_policy_refuse_configure(make_bench: MakeBench) -> None:
    bench = make_bench(command__type="trajectory", command__joint_names=["one", "two"])
    assert not bench.configure()
    assert "command.joint_names; got 2 joints; expected 6" in bench.node.refusal


def test_a_workspace_that_is_no_box_refuses_configure(make_bench: MakeBench) -> None:
    bench = make_bench(command__workspace_min_m=[0.0, 0.0, 0.5], command__workspace_max_m=[1.0, 1.0, 0.5])
    assert not bench.configure()
    assert "workspace_max_m" in bench.node.refusal
