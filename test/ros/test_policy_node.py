"""The policy node on a real graph, judged by an independent robot: what is commanded, and what is not."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from harness import ACTION_NAMES, CAMERAS, Bench, SteadyPolicy, call
from std_msgs.msg import Bool
from std_srvs.srv import SetBool, Trigger

from lightvla_ros.core.errors import BundleError
from lightvla_ros.nodes.conversions import stamp_ns

MakeBench = Callable[..., Bench]
TICK_S = 0.05
# What two noisy processors may add between a publish and the robot's receipt.
SLACK_S = 0.15


def test_a_moving_robot_gets_twists_in_metres_per_second_and_the_gripper_once(moving: Bench) -> None:
    robot = moving.robot
    _, command = robot.commands[-1]
    linear, angular = command.twist.linear, command.twist.angular
    np.testing.assert_allclose([linear.x, linear.y, linear.z], 0.1 * 0.05 / 0.05, rtol=1e-5)
    np.testing.assert_allclose([angular.x, angular.y, angular.z], 0.1 * 0.5 / 0.05, rtol=1e-5)
    assert command.header.frame_id == "base_link"
    moving.wait_for_motion()
    assert robot.gripper == [1.0]


def test_a_chunk_message_carries_the_observations_stamp_and_only_steps_ahead(moving: Bench) -> None:
    robot = moving.robot
    moving.wait_until(lambda: len(robot.chunks) > 5, "chunks")
    now_ns = robot.get_clock().now().nanoseconds
    chunk = robot.chunks[-1]
    observed_ns = stamp_ns(chunk.header.stamp)
    assert tuple(chunk.joint_names) == ACTION_NAMES
    assert observed_ns in robot.image_stamps
    dues = [observed_ns + stamp_ns(point.time_from_start) for point in chunk.points]
    assert 0 < len(dues) < 40 and dues[0] > now_ns - 1_000_000_000
    assert {later - earlier for earlier, later in pairwise(dues)} == {50_000_000}
    np.testing.assert_allclose(chunk.points[0].positions, [0.1] * 6 + [1.0], rtol=1e-6)


@pytest.mark.parametrize("camera", CAMERAS)
def test_a_stopped_camera_stops_motion_within_stale_after_and_one_tick(moving: Bench, camera: str) -> None:
    moving.robot.cameras.discard(camera)
    stopped = time.monotonic()
    moving.wait_for_stop(f"stale:{camera}")
    moving.assert_still()
    last_move = moving.robot.moves[-1]
    assert last_move - stopped <= 0.5 + TICK_S + SLACK_S
    assert moving.robot.speeds[-1] == 0.0, "a zero command ends the motion"
    moving.robot.cameras.add(camera)
    moving.wait_for_motion()


def test_a_silent_robot_state_stops_motion(moving: Bench) -> None:
    moving.robot.sends_state = False
    stopped = time.monotonic()
    moving.wait_for_stop("stale:robot_state")
    assert moving.robot.moves[-1] - stopped <= 0.5 + TICK_S + SLACK_S


def test_a_new_instruction_drops_the_old_epoch(moving: Bench) -> None:
    robot = moving.robot
    assert set(np.round(robot.speeds, 3)) == {0.1}
    robot.instruct("go fast")
    moving.wait_until(lambda: robot.speeds[-1] == pytest.approx(0.5), "the new speed")
    moving.wait_for_motion()
    changes = [later for earlier, later in pairwise(np.round(robot.speeds, 3)) if later != earlier]
    assert changes in ([0.5], [0.0, 0.5]), "old and new epochs were mixed"


def test_an_empty_instruction_stops_with_one_zero(moving: Bench) -> None:
    moving.robot.instruct("")
    moving.wait_for_stop("no_instruction")
    moving.wait_until(lambda: moving.robot.speeds[-1] == 0.0, "the zero command")
    moving.assert_still()
    assert moving.robot.speeds.count(0.0) == 1


def test_nothing_is_commanded_while_disabled_and_chunks_can_be_looked_at(make_bench: MakeBench) -> None:
    bench = make_bench()
    bench.activate()
    bench.robot.instruct("go")
    bench.wait_until(lambda: len(bench.robot.chunks) > 5, "chunks")
    bench.assert_still()
    assert bench.robot.commands == [] and bench.robot.gripper == []
    assert bench.reason == "disabled"


def test_the_enable_service_starts_and_stops_commands(make_bench: MakeBench) -> None:
    bench = make_bench()
    assert not call(bench, SetBool, "/lightvla_policy/enable", SetBool.Request(data=True)).success
    bench.activate()
    bench.robot.instruct("go")
    assert call(bench, SetBool, "/lightvla_policy/enable", SetBool.Request(data=True)).success
    bench.wait_for_motion()
    assert call(bench, SetBool, "/lightvla_policy/enable", SetBool.Request(data=False)).success
    bench.wait_until(lambda: bench.robot.speeds[-1] == 0.0, "the zero command")
    bench.assert_still()


def test_deactivating_stops_a_moving_robot_and_activating_starts_anew(moving: Bench) -> None:
    moving.deactivate()
    moving.wait_until(lambda: moving.robot.speeds[-1] == 0.0, "the zero command")
    chunks = len(moving.robot.chunks)
    moving.assert_still()
    assert len(moving.robot.chunks) <= chunks + 1
    assert moving.transition(moving.node.trigger_activate)
    moving.wait_for_motion()


def test_cleanup_frees_the_policy_and_the_node_configures_again(make_bench: MakeBench) -> None:
    policies = [SteadyPolicy(), SteadyPolicy()]
    waiting = list(policies)
    bench = make_bench(lambda config: waiting.pop(0), enable_actuation=True)
    bench.activate()
    bench.deactivate()
    assert bench.transition(bench.node.trigger_cleanup)
    assert policies[0].closed and not policies[1].closed
    bench.wait_until(lambda: bench.node.count_publishers("/policy/command") == 0, "the topic's end")
    bench.activate()
    bench.robot.instruct("go")
    bench.wait_for_motion()


def test_a_last_command_that_cannot_be_sent_keeps_no_policy_alive(
    moving: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no way out")

    monkeypatch.setattr(moving.node.session._command, "hold", fail)
    moving.transition(moving.node.trigger_shutdown)
    assert moving.policy.closed


def test_a_policy_that_cannot_be_loaded_refuses_configure_and_says_why(make_bench: MakeBench) -> None:
    def refuse(config: object) -> SteadyPolicy:
        raise BundleError("engines/none", got="no manifest.json", fix="lightvla export")

    bench = make_bench(refuse)
    assert not bench.configure()
    bench.wait_until(lambda: "no manifest.json" in bench.robot.status.get("stop_reason", ""), "diagnostics")


def test_an_unforeseen_exception_in_configure_is_survived(make_bench: MakeBench) -> None:
    attempts: list[SteadyPolicy] = []

    def break_once(config: object) -> SteadyPolicy:
        attempts.append(SteadyPolicy())
        if len(attempts) == 1:
            raise RuntimeError("driver exploded")
        return attempts[-1]

    bench = make_bench(break_once)
    assert not bench.configure()
    assert bench.configure()


def test_a_policy_that_does_not_fit_the_state_topics_refuses_configure(make_bench: MakeBench) -> None:
    policy = SteadyPolicy(proprio_dim=9)
    bench = make_bench(policy)
    assert not bench.configure()
    assert policy.closed
    assert "expected 9, as the policy 'steady' was trained with" in bench.node.refusal


def test_an_engine_failure_stops_until_reset(make_bench: MakeBench) -> None:
    policy = SteadyPolicy(fail_on="break")
    bench = make_bench(policy, enable_actuation=True)
    bench.activate()
    bench.robot.instruct("break it")
    bench.wait_for_stop("fault")
    bench.robot.instruct("go")
    bench.assert_still()
    assert call(bench, Trigger, "/lightvla_policy/reset", Trigger.Request()).success
    bench.wait_for_motion()


def test_an_emergency_stop_lasts_until_reset_whatever_is_released_or_restarted(moving: Bench) -> None:
    button = moving.robot.create_publisher(Bool, "/estop", 10)
    moving.wait_until(lambda: button.get_subscription_count() == 1, "a listener")
    button.publish(Bool(data=True))
    moving.wait_for_stop("estop")
    button.publish(Bool(data=False))
    moving.wait_until(lambda: moving.robot.speeds[-1] == 0.0, "the zero command that ends the motion")
    moving.assert_still()
    moving.deactivate()
    assert moving.transition(moving.node.trigger_activate)
    moving.wait_for_stop("estop")
    moving.assert_still()
    assert call(moving, Trigger, "/lightvla_policy/reset", Trigger.Request()).success
    moving.wait_for_motion()


def test_the_instruction_is_heard_by_a_node_that_starts_later(make_bench: MakeBench) -> None:
    bench = make_bench(enable_actuation=True)
    bench.robot.instruct("go")
    bench.activate()
    bench.wait_for_motion()


@pytest.fixture
def simulated(make_bench: MakeBench) -> Bench:
    """A moving robot that lives in simulated time."""
    bench = make_bench(enable_actuation=True, use_sim_time=True)
    bench.robot.sim_time_ns = 1_000_000_000_000
    bench.activate()
    bench.robot.instruct("go")
    bench.wait_for_motion()
    return bench


def test_with_simulated_time_commands_and_chunks_carry_it(simulated: Bench) -> None:
    robot = simulated.robot
    assert 1000 < stamp_ns(robot.commands[-1][1].header.stamp) / 1e9 < 1100
    assert stamp_ns(robot.chunks[-1].header.stamp) in robot.image_stamps


def test_simulated_time_that_jumps_back_resets_and_motion_goes_on(simulated: Bench) -> None:
    simulated.robot.sim_time_ns = 0
    simulated.wait_until(
        lambda: stamp_ns(simulated.robot.commands[-1][1].header.stamp) < 10**11, "a command of the new time"
    )
    simulated.wait_for_motion()
    assert simulated.node.session.loop.counts()["clock_jumps"] >= 1


def test_a_simulator_that_dies_with_its_clock_stops_motion(simulated: Bench) -> None:
    simulated.robot.timer.cancel()
    died = time.monotonic()
    simulated.wait_for_stop("clock_stopped")
    simulated.assert_still()
    assert simulated.robot.moves[-1] - died <= 0.5 + TICK_S + SLACK_S


def test_diagnostics_tell_rates_latencies_and_counts(moving: Bench) -> None:
    moving.wait_until(lambda: float(moving.robot.status.get("command_rate_hz", 0)) > 10, "diagnostics")
    status = moving.robot.status
    stages = ("received", "paired", "vision", "scheduled", "published")
    expected = {f"{stage}_{rank}_ms" for stage in stages for rank in ("p50", "p95", "p99")}
    assert expected | {"action_rate_hz", "retained_last", "chunks", "ticks_over_budget"} <= set(status)
    assert (status["instruction"], status["enabled"], status["num_visual_tokens"]) == ("go", "True", "32")


def test_in_mode_sync_the_robot_moves_a_horizon_then_stands_still_for_the_next_chunk(
    make_bench: MakeBench,
) -> None:
    policy = SteadyPolicy()
    # Four steps end between two frames, so that frames that jitter do not decide what is seen.
    policy.spec = dataclasses.replace(policy.spec, step_period_ns=30_000_000)
    bench = make_bench(
        policy,
        enable_actuation=True,
        command_rate_hz=100.0,
        schedule__mode="sync",
        schedule__execution_horizon=4,
    )
    bench.activate()
    bench.robot.instruct("go")
    bench.wait_until(lambda: len(bench.robot.moves) > 60, "five chunks")
    moves = [speed != 0.0 for speed in bench.robot.speeds]
    runs = [len(list(group)) for is_motion, group in itertools.groupby(moves) if is_motion]
    assert max(runs) <= 13, "a tick more than the 12 of the horizon where one falls on both ends"
    assert False in moves, "it stands still in between"
    assert bench.reason in (None, "awaiting_chunk")
