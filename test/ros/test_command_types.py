"""Each command type as a controller hears it: what moves, and what stands still when an action is missing."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import rclpy
from geometry_msgs.msg import PoseStamped, TwistStamped
from harness import Bench, SteadyPolicy, wait_until
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from std_msgs.msg import Float64MultiArray
from trajectory_msgs.msg import JointTrajectory

from lightvla_ros.core.chunk_schedule import RemainingSteps
from lightvla_ros.core.config import NodeConfig, with_values
from lightvla_ros.core.observation import ActionChunk, Observation
from lightvla_ros.core.output import Command, Output
from lightvla_ros.nodes.commands import make_command_output
from lightvla_ros.nodes.entities import Entities

MakeBench = Callable[..., Bench]
# SteadyPolicy wants 0.1 in every dimension; a step of LIBERO scales that to 5 mm and 0.05 rad.
ACTION = 0.1
DEPTH = 10
PERIOD_NS = 50_000_000
JOINTS = {
    "schedule__actions": "positions",
    "command__joint_names": ["joint_1", "joint_2"],
}


class JointPolicy(SteadyPolicy):
    """Moves two joints by the clock, so that a position tells the time it is for, and takes its time."""

    def __init__(self, chunk_size: int = 12) -> None:
        super().__init__()
        names = ("joint_2", "joint_1", "gripper")
        self.spec = replace(self.spec, action_names=names, chunk_size=chunk_size)
        self.began_ns: int | None = None
        self.inference_s = 0.0

    def predict_chunk(self, observation: Observation) -> ActionChunk:
        time.sleep(self.inference_s)
        chunk = super().predict_chunk(observation)
        if observation.stamp_ns and self.began_ns is None:
            self.began_ns = observation.stamp_ns
        first = self.angle(observation.stamp_ns) if self.began_ns else 0.0
        ramp = first + ACTION * 0.05 * np.arange(self.spec.chunk_size)
        actions = np.stack([ramp, -2.0 * ramp, np.ones_like(ramp)], axis=1).astype(np.float32)
        return replace(chunk, actions=actions)

    def angle(self, time_ns: int) -> float:
        """Where joint_2 shall be, rad; joint_1 goes twice as far the other way."""
        assert self.began_ns is not None
        return 0.5 + ACTION * (time_ns - self.began_ns) / 1e9


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


def start(make_bench: MakeBench, controller: Controller, kind: type, **parameters: Any) -> Bench:
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


def nanoseconds(time_or_duration: Any) -> int:
    return int(time_or_duration.sec * 10**9 + time_or_duration.nanosec)


def assert_due(message: JointTrajectory, policy: JointPolicy) -> None:
    """Every point is where the policy wants the joints at the point's time, one step after another."""
    start_ns = nanoseconds(message.header.stamp)
    times = [start_ns + nanoseconds(point.time_from_start) for point in message.points]
    expected = [[-2 * policy.angle(when), policy.angle(when)] for when in times]
    np.testing.assert_allclose([point.positions for point in message.points], expected, atol=1e-6)
    assert np.all(np.diff(times) == PERIOD_NS)


def test_a_twist_in_units_of_the_action_is_a_matter_of_scale(
    make_bench: MakeBench, controller: Controller
) -> None:
    scales = {"command__linear_scale_m": 0.05, "command__angular_scale_rad": 0.05}  # the step's duration
    start(make_bench, controller, TwistStamped, command__type="twist", **scales)
    twist = controller.wait_for(4).twist
    np.testing.assert_allclose([twist.linear.x, twist.angular.z], [ACTION, ACTION], rtol=1e-6)


def test_twists_do_not_lead_out_of_the_workspace(make_bench: MakeBench, controller: Controller) -> None:
    box = {"limits__workspace_min_m": [-1.0, -1.0, -1.0], "limits__workspace_max_m": [0.502, 1.0, 1.0]}
    start(make_bench, controller, TwistStamped, command__type="twist", **box)
    linear = controller.wait_for(4).twist.linear
    np.testing.assert_allclose([linear.x, linear.y], [0.002 / 0.05, 0.005 / 0.05], rtol=1e-6)


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
    box = {"limits__workspace_min_m": [-1.0, -1.0, -1.0], "limits__workspace_max_m": [0.502, 1.0, 1.0]}
    start(make_bench, controller, PoseStamped, command__type="pose", **box)
    assert controller.wait_for(4).pose.position.x == pytest.approx(0.502)


def test_forwarded_deltas_stand_still_as_zeros(make_bench: MakeBench, controller: Controller) -> None:
    bench = start(make_bench, controller, Float64MultiArray, command__type="forward")
    np.testing.assert_allclose(controller.wait_for(4).data, [ACTION] * 6, rtol=1e-6)
    np.testing.assert_array_equal(hold(bench, controller).data, [0.0] * 6)


def test_forwarded_positions_are_in_the_controllers_order_and_stand_still_as_the_last_ones(
    make_bench: MakeBench, controller: Controller
) -> None:
    policy = JointPolicy()
    bench = start(make_bench, controller, Float64MultiArray, policy=policy, command__type="forward", **JOINTS)
    joint_1, joint_2 = controller.wait_for(4).data
    assert joint_1 == pytest.approx(-2 * joint_2)
    assert 0.5 <= joint_2 <= policy.angle(time.time_ns())
    held = hold(bench, controller).data
    assert held[1] > joint_2
    np.testing.assert_array_equal([message.data for message in controller.heard[-3:]], [held] * 3)


def test_a_trajectory_point_names_its_joints_and_is_due_one_command_period_from_now(
    make_bench: MakeBench, controller: Controller
) -> None:
    policy = JointPolicy()
    parameters = {"policy": policy, "command__type": "jtc_point", "command_rate_hz": 40.0, **JOINTS}
    bench = start(make_bench, controller, JointTrajectory, **parameters)
    message = controller.wait_for(4)
    assert list(message.joint_names) == ["joint_1", "joint_2"]
    assert nanoseconds(message.header.stamp) == 0
    (point,) = message.points
    assert nanoseconds(point.time_from_start) == 25_000_000
    assert point.positions[0] == pytest.approx(-2 * point.positions[1])
    assert 0.5 <= point.positions[1] <= policy.angle(time.time_ns())
    assert not any((point.velocities, point.accelerations, point.effort))
    (held,) = hold(bench, controller).points
    np.testing.assert_array_equal(
        [m.points[0].positions for m in controller.heard[-3:]], [held.positions] * 3
    )
    assert nanoseconds(held.time_from_start) == 25_000_000


def test_a_chunk_is_sent_once_with_every_step_at_its_own_time(
    make_bench: MakeBench, controller: Controller
) -> None:
    policy = JointPolicy()
    parameters = {"policy": policy, "command__type": "jtc_chunk", "schedule__execution_horizon": 5, **JOINTS}
    bench = start(make_bench, controller, JointTrajectory, **parameters)
    controller.wait_for(4)
    stamps = [nanoseconds(message.header.stamp) for message in controller.heard]
    assert stamps == sorted(set(stamps))
    assert set(stamps) <= set(bench.robot.image_stamps)
    for message in controller.heard:
        assert list(message.joint_names) == ["joint_1", "joint_2"]
        assert_due(message, policy)
        assert nanoseconds(message.points[-1].time_from_start) == 11 * PERIOD_NS


def test_steps_that_inference_was_too_slow_for_are_not_in_the_chunk(
    make_bench: MakeBench, controller: Controller
) -> None:
    policy = JointPolicy()
    policy.inference_s = 0.16
    start(make_bench, controller, JointTrajectory, policy=policy, command__type="jtc_chunk", **JOINTS)
    message = controller.wait_for(3)
    assert_due(message, policy)
    assert nanoseconds(message.points[0].time_from_start) >= 4 * PERIOD_NS


def test_a_stop_replaces_the_rest_of_a_chunk_and_motion_goes_on_with_a_new_one(
    make_bench: MakeBench, controller: Controller
) -> None:
    policy = JointPolicy()
    parameters = {"policy": policy, "command__type": "jtc_chunk", **JOINTS}
    bench = start(make_bench, controller, JointTrajectory, **parameters)
    controller.wait_for(3)
    message = hold(bench, controller)
    assert nanoseconds(message.header.stamp) == 0
    (point,) = message.points
    assert nanoseconds(point.time_from_start) == PERIOD_NS
    assert 0.5 <= point.positions[1] <= policy.angle(time.time_ns())
    bench.robot.cameras.add("wrist")
    bench.wait_until(lambda: nanoseconds(controller.wait_for(1).header.stamp), "a chunk")
    assert_due(controller.heard[-1], policy)


def test_what_is_left_of_a_chunk_is_sent_again_after_a_pause(
    make_bench: MakeBench, controller: Controller
) -> None:
    policy = JointPolicy(chunk_size=200)
    parameters = {
        "policy": policy,
        "command__type": "jtc_chunk",
        "schedule__execution_horizon": 200,
        **JOINTS,
    }
    bench = start(make_bench, controller, JointTrajectory, **parameters)
    chunk = controller.wait_for(1)
    loop = bench.node.session.loop
    loop.enable(False)
    assert nanoseconds(controller.wait_for(1).header.stamp) == 0
    loop.enable(True)
    rest = controller.wait_for(1)
    assert rest.header.stamp == chunk.header.stamp
    assert len(rest.points) < len(chunk.points)
    assert_due(rest, policy)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"command__type": "jtc_chunk"}, "command.type jtc_chunk; got schedule.actions deltas"),
        ({"schedule__actions": "positions"}, "command.type twist; got schedule.actions positions"),
        (
            {"command__type": "forward", "command__joint_names": ["one", "two"]},
            "command.joint_names; got 2 joints; expected 6",
        ),
        (
            {
                "limits__workspace_min_m": [0.0, 0.0, 0.5],
                "limits__workspace_max_m": [1.0, 1.0, 0.5],
            },
            "workspace_max_m",
        ),
    ],
)
def test_what_does_not_fit_refuses_configure(
    make_bench: MakeBench, parameters: dict[str, object], message: str
) -> None:
    bench = make_bench(**parameters)
    assert not bench.configure()
    assert message in bench.node.refusal


@pytest.mark.parametrize("kind", ["twist", "pose", "forward", "jtc_point", "jtc_chunk"])
def test_five_minutes_of_commands_need_no_more_memory_than_one(kind: str) -> None:
    context = Context()
    rclpy.init(context=context)
    node = Node("sender", context=context)
    actions = "deltas" if kind in ("twist", "pose") else "positions"
    config = with_values(NodeConfig(), {"command.type": kind, "schedule.actions": actions})
    output = make_command_output(Entities(node), config=config, spec=SteadyPolicy().spec)
    assert output is not None
    chunk, proprio = np.full((40, 7), ACTION, dtype=np.float32), np.zeros(8)

    def send(commands: int) -> None:
        for index in range(commands):
            steps = RemainingSteps(
                actions=chunk[index % 40 :],
                stamp_ns=1 + index // 2,
                begins_ns=2 + index // 2,
                step_period_ns=PERIOD_NS,
            )
            if index % 10:
                moves = Command(
                    output=Output.MOVE, action=chunk[0], step_ns=index, ahead=steps, proprio=proprio
                )
                output.move(moves, index)
            else:
                output.hold(Command(output=Output.HOLD, proprio=proprio), index)

    minute = 60 * 20
    tracemalloc.start()
    send(minute)
    before, _ = tracemalloc.get_traced_memory()
    send(4 * minute)
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    node.destroy_node()
    rclpy.shutdown(context=context)
    # The smallest object has 28 bytes. rclpy keeps a few hundred, but not one for each message.
    assert grown < 4 * minute * 10
