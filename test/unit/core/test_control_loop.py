"""The node without ROS: every rule about motion, with time as an argument."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from lightvla_ros.core.config import NodeConfig, with_values
from lightvla_ros.core.control_loop import ControlLoop
from lightvla_ros.core.errors import ChunkError, ConfigError, EngineError, InstructionError, ObservationError
from lightvla_ros.core.frame_pairing import Frame, StampedObservation
from lightvla_ros.core.observation import ActionChunk
from lightvla_ros.core.output import Output
from lightvla_ros.core.policy import PolicySpec
from lightvla_ros.core.sensor_inputs import STATE

MS = 1_000_000
START = 10_000 * MS
SPEC = PolicySpec(
    name="test",
    backend="none",
    camera_names=("third_person", "wrist"),
    grid=(2, 2),
    chunk_size=40,
    action_names=("x", "y", "z", "rx", "ry", "rz", "gripper"),
    proprio_dim=8,
    step_period_ns=50 * MS,
)


def check_instruction(text: str) -> None:
    if "forbidden" in text:
        raise InstructionError("instruction", got=text, expected="another one", fix="say something else")


def make_loop(**values: object) -> ControlLoop:
    config = with_values(NodeConfig(), {"enable_actuation": True, "schedule.execution_horizon": 1, **values})
    loop = ControlLoop(config=config, spec=SPEC, check_instruction=check_instruction)
    loop.start(START)
    return loop


def frame(stamp_ns: int, size: int = 4) -> Frame:
    return Frame(image=np.zeros((size, size, 3), np.uint8), stamp_ns=stamp_ns)


def feed(loop: ControlLoop, now_ns: int) -> StampedObservation | None:
    loop.add_proprio(np.zeros(8), now_ns, now_ns)
    loop.add_frame("third_person", frame(now_ns), now_ns)
    return loop.add_frame("wrist", frame(now_ns), now_ns)


def answer(observation: StampedObservation, value: float = 0.5, gripper: float = 1.0) -> ActionChunk:
    actions = np.full((SPEC.chunk_size, 7), value, np.float32)
    actions[:, -1] = gripper
    return ActionChunk(
        actions=actions,
        stamp_ns=observation.stamp_ns,
        step_period_ns=SPEC.step_period_ns,
        epoch=observation.epoch,
        instruction=observation.instruction,
    )


def output(loop: ControlLoop, now_ns: int) -> Output:
    return loop.tick(now_ns, now_ns - START).output


def reason(loop: ControlLoop) -> str | None:
    return loop.stop_reason.code if loop.stop_reason else None


def moving(**values: object) -> ControlLoop:
    """Make a loop that has moved at START, with two seconds of actions in hand."""
    loop = make_loop(**values)
    loop.instruct("pick up the cube", START)
    observation = feed(loop, START)
    assert observation is not None
    assert loop.accept(answer(observation), START)
    assert output(loop, START) is Output.MOVE
    return loop


def test_an_instructed_robot_with_fresh_inputs_moves() -> None:
    loop = moving()
    assert reason(loop) is None
    command = loop.tick(START + 50 * MS, 50 * MS)
    assert command.action is not None and command.action[0] == 0.5


def test_the_gripper_is_told_once() -> None:
    loop = make_loop()
    loop.instruct("go", START)
    observation = feed(loop, START)
    assert observation is not None
    loop.accept(answer(observation, gripper=1.0), START)
    closes = [loop.tick(START + t * MS, t * MS).close_gripper for t in (0, 50, 100)]
    assert closes == [True, None, None]


def test_without_an_instruction_nothing_is_inferred_or_said() -> None:
    loop = make_loop()
    assert feed(loop, START) is None
    assert output(loop, START) is Output.SILENT
    assert reason(loop) == "no_instruction"


def test_a_disabled_robot_gets_chunks_and_no_commands() -> None:
    loop = make_loop(enable_actuation=False)
    loop.instruct("go", START)
    observation = feed(loop, START)
    assert observation is not None and loop.accept(answer(observation), START)
    assert loop.remaining(START) is not None
    assert output(loop, START) is Output.SILENT
    assert reason(loop) == "disabled"
    loop.enable(True)
    assert output(loop, START) is Output.MOVE


def test_an_inactive_loop_takes_nothing_and_says_nothing() -> None:
    loop = moving()
    loop.stop()
    assert feed(loop, START + MS) is None
    assert output(loop, START + MS) is Output.HOLD, "one zero ends the motion"
    assert output(loop, START + 2 * MS) is Output.SILENT
    assert loop.remaining(START) is None


@pytest.mark.parametrize("silent", ["third_person", "wrist", STATE])
def test_a_stale_input_stops_motion_within_stale_after_and_one_tick(silent: str) -> None:
    loop = moving()
    moved_ms = []
    for elapsed in range(0, 1000, 10):
        now = START + elapsed * MS
        for camera in {"third_person", "wrist"} - {silent}:
            loop.add_frame(camera, frame(now), now)
        if silent != STATE:
            loop.add_proprio(np.zeros(8), now, now)
        if elapsed % 50 == 0 and output(loop, now) is Output.MOVE:
            moved_ms.append(elapsed)
    assert moved_ms == list(range(0, 501, 50))
    assert reason(loop) == f"stale:{silent}"


def test_a_stop_is_held_and_then_silent() -> None:
    loop = moving(silence_after_s=0.2)
    outputs = [output(loop, START + t * MS) for t in (500, 550, 600, 700, 750)]
    assert outputs == [Output.MOVE, Output.HOLD, Output.HOLD, Output.HOLD, Output.SILENT]


def test_a_robot_whose_camera_comes_back_goes_on_with_a_new_chunk_only() -> None:
    loop = moving()
    assert output(loop, START + 600 * MS) is Output.HOLD
    observation = feed(loop, START + 610 * MS)
    assert observation is not None
    assert output(loop, START + 620 * MS) is Output.HOLD, "the old chunk is gone"
    loop.accept(answer(observation), START + 630 * MS)
    assert output(loop, START + 640 * MS) is Output.MOVE


def test_a_new_instruction_drops_the_schedule_and_what_is_in_flight() -> None:
    loop = moving()
    in_flight = feed(loop, START + 10 * MS)
    assert in_flight is not None
    loop.instruct("put it down", START)
    assert output(loop, START + 20 * MS) is Output.HOLD
    assert not loop.accept(answer(in_flight), START + 30 * MS)
    assert output(loop, START + 40 * MS) is Output.HOLD
    newer = feed(loop, START + 50 * MS)
    assert newer is not None and newer.epoch == in_flight.epoch + 1 and newer.instruction == "put it down"


def test_the_same_instruction_again_changes_nothing() -> None:
    loop = moving()
    epoch = loop.epoch
    loop.instruct(" pick up the cube ", START)
    assert loop.epoch == epoch and output(loop, START + MS) is Output.MOVE


def test_an_empty_instruction_stops_at_once() -> None:
    loop = moving()
    loop.instruct("", START)
    assert [output(loop, START + t * MS) for t in (1, 2)] == [Output.HOLD, Output.SILENT]
    assert feed(loop, START + 3 * MS) is None


def test_a_refused_instruction_stops_and_says_why() -> None:
    loop = moving()
    with pytest.raises(InstructionError):
        loop.instruct("something forbidden", START)
    assert feed(loop, START + MS) is None
    assert [output(loop, START + t * MS) for t in (1, 2)] == [Output.HOLD, Output.SILENT]
    assert reason(loop) == "instruction"
    loop.instruct("pick up the can", START)
    assert feed(loop, START + 5 * MS) is not None


def test_a_changed_image_size_is_refused_until_reset() -> None:
    loop = moving()
    with pytest.raises(ObservationError, match="got 8x8 pixels; expected 4x4"):
        loop.add_frame("wrist", frame(START + MS, size=8), START + MS)
    loop.reset(START + 2 * MS)
    assert loop.add_frame("wrist", frame(START + 3 * MS, size=8), START + 3 * MS) is None


def test_a_stamp_from_the_future_is_refused() -> None:
    loop = make_loop()
    with pytest.raises(ObservationError, match="60.00 s in the future"):
        loop.add_frame("wrist", frame(START + 60_000 * MS), START)
    with pytest.raises(ObservationError, match="robot's state; got 0.20 s in the future; .* 0.1 s ahead"):
        loop.add_proprio(np.zeros(8), START + 200 * MS, START)


def test_a_camera_whose_clock_is_a_little_ahead_costs_no_command() -> None:
    loop = make_loop()
    loop.instruct("go", START)
    outputs = []
    for elapsed in range(0, 1000, 10):
        now = START + elapsed * MS
        outputs.append(output(loop, now))
        if elapsed % 50 == 0:
            loop.add_proprio(np.zeros(8), now, now)
            loop.add_frame("third_person", frame(now + 40 * MS), now)
            observation = loop.add_frame("wrist", frame(now + 40 * MS), now)
            assert observation is not None
            loop.accept(answer(observation), now)
    assert outputs[:4] == [Output.SILENT] * 4, "the first chunk begins in 40 ms"
    assert set(outputs[4:]) == {Output.MOVE}


def test_no_chunk_is_published_while_the_robot_must_not_move() -> None:
    loop = moving()
    observation = feed(loop, START + 10 * MS)
    assert observation is not None
    loop.block("estop", "button")
    loop.accept(answer(observation), START + 20 * MS)
    assert loop.remaining(START + 21 * MS) is None
    loop.unblock("estop")
    assert loop.remaining(START + 22 * MS) is not None


def test_an_instruction_that_is_stale_is_not_inferred_for() -> None:
    loop = moving(instruction_timeout_s=0.2)
    assert feed(loop, START + 200 * MS) is not None
    assert feed(loop, START + 210 * MS) is None


@pytest.mark.parametrize("name", ["wrist", STATE])
def test_a_refused_input_stops_motion_at_the_next_tick(name: str) -> None:
    loop = moving()
    loop.refuse(name, "not a number")
    assert output(loop, START + MS) is Output.HOLD
    assert loop.stop_reason is not None and loop.stop_reason.message == "not a number"
    observation = feed(loop, START + 2 * MS)
    assert observation is not None
    loop.accept(answer(observation), START + 2 * MS)
    assert output(loop, START + 3 * MS) is Output.MOVE


def test_a_refused_frame_is_never_part_of_an_observation() -> None:
    loop = make_loop()
    loop.instruct("go", START)
    loop.add_proprio(np.zeros(8), START, START)
    loop.add_frame("wrist", frame(START), START)
    loop.refuse("wrist", "garbage")
    assert loop.add_frame("third_person", frame(START), START) is None


def test_an_engine_failure_stops_until_reset() -> None:
    loop = moving()
    loop.fail(EngineError("engine broke"))
    assert output(loop, START + MS) is Output.HOLD
    assert reason(loop) == "fault"
    loop.instruct("another thing", START)
    assert feed(loop, START + 2 * MS) is None, "an engine failure is never retried silently"
    loop.reset(START + 3 * MS)
    assert feed(loop, START + 4 * MS) is not None


def test_a_bad_observation_stops_until_a_good_one() -> None:
    loop = moving()
    loop.fail(ObservationError("proprio", got="7 numbers", expected="8"))
    assert output(loop, START + MS) is Output.HOLD
    observation = feed(loop, START + 2 * MS)
    assert observation is not None
    loop.accept(answer(observation), START + 3 * MS)
    assert output(loop, START + 4 * MS) is Output.MOVE


def test_a_non_finite_chunk_is_refused_whole() -> None:
    loop = moving()
    observation = feed(loop, START + MS)
    assert observation is not None
    with pytest.raises(ChunkError, match="non-finite"):
        loop.accept(answer(observation, value=math.nan), START + MS)


@pytest.mark.parametrize("jump_s", [-5.0, 30.0])
def test_a_clock_jump_drops_everything(jump_s: float) -> None:
    loop = moving()
    in_flight = feed(loop, START + 10 * MS)
    assert in_flight is not None
    jumped = START + round(jump_s * 1e9)
    assert loop.tick(jumped, 50 * MS).output is Output.HOLD
    assert loop.counts()["clock_jumps"] == 1
    assert not loop.accept(answer(in_flight), jumped)
    assert loop.tick(jumped + 50 * MS, 100 * MS).output is Output.HOLD
    observation = feed(loop, jumped + 60 * MS)
    assert observation is not None and loop.accept(answer(observation), jumped + 60 * MS)
    assert loop.tick(jumped + 100 * MS, 150 * MS).output is Output.MOVE


def test_a_clock_that_stands_still_stops_motion() -> None:
    loop = moving()
    outputs = [loop.tick(START, elapsed * MS).output for elapsed in (100, 500, 501)]
    assert outputs == [Output.MOVE, Output.MOVE, Output.HOLD]
    assert reason(loop) == "clock_stopped"


def test_a_block_from_outside_stops_until_lifted() -> None:
    loop = moving()
    loop.block("two_publishers", "two cameras on one topic")
    assert output(loop, START + MS) is Output.HOLD
    assert feed(loop, START + 2 * MS) is None
    loop.unblock("two_publishers")
    assert feed(loop, START + 3 * MS) is not None


def test_a_reason_is_noted_on_its_edges_only() -> None:
    loop = moving()
    loop.take_edges()
    for t in range(1, 20):
        output(loop, START + (500 + t) * MS)
    assert [edge.code if edge else None for edge in loop.take_edges()] == ["stale:third_person"]


def test_limits_of_time_may_change_while_running() -> None:
    loop = moving()
    loop.apply(with_values(NodeConfig(), {"stale_after_s": 0.1}))
    assert output(loop, START + 101 * MS) is Output.HOLD


def test_frames_within_the_execution_horizon_are_not_inferred_from() -> None:
    loop = make_loop(**{"schedule.execution_horizon": 2})
    loop.instruct("go", START)
    first = feed(loop, START)
    assert first is not None
    loop.accept(answer(first), START + 20 * MS)
    assert feed(loop, START + 50 * MS) is None
    assert feed(loop, START + 100 * MS) is not None
    loop.instruct("go elsewhere", START)
    assert feed(loop, START + 120 * MS) is not None


def test_cameras_that_never_agree_stop_motion_and_say_by_how_much() -> None:
    loop = moving(**{"camera.max_pair_skew_s": 0.01})
    for elapsed in range(50, 600, 50):
        now = START + elapsed * MS
        loop.add_proprio(np.zeros(8), now, now)
        loop.add_frame("third_person", frame(now), now)
        loop.add_frame("wrist", frame(now - 25 * MS), now)
    assert output(loop, START + 550 * MS) is Output.HOLD
    assert reason(loop) == "skew"
    assert (
        "at best 0.025 s apart; expected at most camera.max_pair_skew_s = 0.01 s" in loop.stop_reason.message
    )
    assert loop.counts()["frames_unpaired"] > 5


def test_a_camera_that_repeats_its_image_under_new_stamps_stops_motion_where_asked() -> None:
    loop = moving(**{"camera.frozen_after_s": 0.3})
    for elapsed in range(50, 500, 50):
        now = START + elapsed * MS
        loop.add_proprio(np.zeros(8), now, now)
        image = np.full((4, 4, 3), elapsed // 2, np.uint8)
        loop.add_frame("third_person", Frame(image=image, stamp_ns=now), now)
        loop.add_frame("wrist", frame(now), now)
        output(loop, now)
        assert reason(loop) == ("frozen:wrist" if elapsed > 300 else None)
    observation = None
    for camera in SPEC.camera_names:
        image = np.full((4, 4, 3), 251, np.uint8)
        observation = loop.add_frame(camera, Frame(image=image, stamp_ns=now + MS), now + MS)
    assert observation is not None, "a new picture lifts it"


def test_an_instruction_that_is_not_repeated_stops_motion_where_asked() -> None:
    loop = moving(instruction_timeout_s=0.2)
    assert output(loop, START + 200 * MS) is Output.MOVE
    assert output(loop, START + 201 * MS) is Output.HOLD
    assert reason(loop) == "instruction_stale"
    loop.instruct("pick up the cube", START + 210 * MS)
    assert output(loop, START + 220 * MS) is Output.HOLD, "what was scheduled is gone"
    assert reason(loop) == "no_action"
    observation = feed(loop, START + 230 * MS)
    assert observation is not None and loop.accept(answer(observation), START + 230 * MS)
    assert output(loop, START + 240 * MS) is Output.MOVE


@pytest.mark.parametrize("shape", [(39, 7), (40, 6), (40, 8)])
def test_a_chunk_of_another_shape_is_refused_and_stops_until_reset(shape: tuple[int, int]) -> None:
    loop = moving()
    observation = feed(loop, START + MS)
    assert observation is not None
    misshapen = dataclasses.replace(answer(observation), actions=np.zeros(shape, np.float32))
    with pytest.raises(ChunkError, match="40 steps of") as refusal:
        loop.accept(misshapen, START + 2 * MS)
    loop.fail(refusal.value)
    assert output(loop, START + 3 * MS) is Output.HOLD
    assert reason(loop) == "chunk"
    loop.reset(START + 4 * MS)
    assert feed(loop, START + 5 * MS) is not None


def test_in_mode_sync_one_observation_is_asked_for_and_standing_still_is_no_fault() -> None:
    loop = make_loop(**{"schedule.mode": "sync", "schedule.execution_horizon": 2})
    loop.instruct("go", START)
    first = feed(loop, START)
    assert first is not None
    assert feed(loop, START + 50 * MS) is None, "one is in flight"
    loop.accept(answer(first), START + 60 * MS)
    assert output(loop, START + 60 * MS) is Output.MOVE
    assert feed(loop, START + 100 * MS) is None, "the chunk is being executed"
    assert output(loop, START + 160 * MS) is Output.HOLD
    assert reason(loop) == "awaiting_chunk"
    assert feed(loop, START + 161 * MS) is not None


def test_an_observation_that_failed_or_is_of_an_older_epoch_blocks_no_other() -> None:
    loop = make_loop(**{"schedule.mode": "sync"})
    loop.instruct("go", START)
    assert feed(loop, START) is not None
    loop.fail(ObservationError("proprio", got="7 numbers", expected="8"))
    assert feed(loop, START + 50 * MS) is not None
    loop.instruct("go elsewhere", START + 60 * MS)
    assert feed(loop, START + 100 * MS) is not None


def test_each_dimension_is_limited_and_the_gripper_is_not() -> None:
    loop = make_loop(**{"limits.action_max": [0.3], "limits.action_min": [-0.3]})
    loop.instruct("go", START)
    observation = feed(loop, START)
    assert observation is not None
    loop.accept(answer(observation), START)
    command = loop.tick(START, 0)
    assert command.action is not None and command.is_limited
    np.testing.assert_allclose(command.action, [0.3] * 6 + [1.0])


def test_a_limit_for_another_number_of_dimensions_changes_nothing() -> None:
    loop = moving()
    with pytest.raises(ConfigError, match="limits.action_max; got 3 numbers; expected one for all, or 6"):
        loop.apply(with_values(NodeConfig(), {"limits.action_max": [1.0] * 3, "stale_after_s": 0.01}))
    assert output(loop, START + 400 * MS) is Output.MOVE


def test_a_command_carries_the_steps_that_follow_where_they_are_published() -> None:
    loop = make_loop(**{"command.type": "jtc_chunk", "schedule.actions": "positions"})
    loop.instruct("go", START)
    observation = feed(loop, START)
    assert observation is not None
    loop.accept(answer(observation), START)
    command = loop.tick(START + 50 * MS, 50 * MS)
    assert command.ahead is not None
    assert command.ahead.begins_ns == START + 100 * MS, "what begins before the next tick would be a jump"
    assert len(command.ahead.actions) == SPEC.chunk_size - 2


def test_the_age_of_an_observation_is_told_when_its_chunk_first_moves_the_robot() -> None:
    loop = moving()
    for elapsed in (10, 60):
        now = START + elapsed * MS
        loop.published(loop.tick(now, elapsed * MS), now)
    assert loop.latencies.percentiles_ms(0, 100)["published"] == (10.0, 10.0)


def test_after_a_stop_a_limited_change_starts_from_standing_still() -> None:
    loop = moving(**{"limits.max_change_per_s": [2.0]})
    assert output(loop, START + 600 * MS) is Output.HOLD
    observation = feed(loop, START + 610 * MS)
    assert observation is not None
    loop.accept(answer(observation), START + 620 * MS)
    command = loop.tick(START + 650 * MS, 650 * MS)
    assert command.action is not None and command.action[0] == pytest.approx(0.1)
