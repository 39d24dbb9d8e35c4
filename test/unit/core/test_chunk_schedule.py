"""The schedule's promises, by example and by property."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightvla_ros.core.chunk_schedule import ChunkSchedule
from lightvla_ros.core.errors import SpecError
from lightvla_ros.core.observation import ActionChunk

PERIOD = 50


def chunk(values: list[float], *, stamp_ns: int = 0, epoch: int = 0, gripper: float = 1.0) -> ActionChunk:
    """Make a chunk of [value, gripper] steps."""
    actions = np.array([[value, gripper] for value in values], dtype=np.float32)
    return ActionChunk(actions=actions, stamp_ns=stamp_ns, step_period_ns=PERIOD, epoch=epoch)


def test_nothing_is_due_before_the_first_chunk() -> None:
    schedule = ChunkSchedule()
    assert schedule.sample(0) is None
    assert schedule.remaining(0) is None


@pytest.mark.parametrize(
    ("now_ns", "value"), [(999, None), (1000, 0.0), (1049, 0.0), (1050, 1.0), (1149, 2.0), (1150, None)]
)
def test_a_step_is_due_in_its_own_period_only(now_ns: int, value: float | None) -> None:
    schedule = ChunkSchedule()
    schedule.replace(chunk([0.0, 1.0, 2.0], stamp_ns=1000), now_ns=1000)
    action = schedule.sample(now_ns)
    assert (None if action is None else action[0]) == value


def test_a_late_chunk_starts_in_its_middle() -> None:
    schedule = ChunkSchedule()
    assert schedule.replace(chunk([0.0, 1.0, 2.0]), now_ns=120)
    action = schedule.sample(120)
    assert action is not None and action[0] == 2.0


def test_a_chunk_that_is_all_past_is_not_taken() -> None:
    schedule = ChunkSchedule()
    assert not schedule.replace(chunk([0.0, 1.0]), now_ns=100)
    assert schedule.sample(100) is None


def test_overlap_is_blended_and_the_gripper_never() -> None:
    schedule = ChunkSchedule(new_weight=0.7)
    schedule.replace(chunk([1.0, 1.0, 1.0], gripper=-1.0), now_ns=0)
    schedule.replace(chunk([2.0, 2.0, 2.0], stamp_ns=50, gripper=1.0), now_ns=50)
    blended = [schedule.sample(now) for now in (50, 100, 150)]
    np.testing.assert_allclose([action[0] for action in blended if action is not None], [1.7, 1.7, 2.0])
    assert [action[1] for action in blended if action is not None] == [1.0, 1.0, 1.0]


def test_a_step_already_begun_is_blended_with_what_is_due_now_and_not_with_the_past() -> None:
    schedule = ChunkSchedule(new_weight=0.5)
    schedule.replace(chunk([0.0, 10.0, 10.0]), now_ns=0)
    schedule.replace(chunk([20.0, 20.0], stamp_ns=25), now_ns=60)
    action = schedule.sample(60)
    assert action is not None and action[0] == 15.0


def test_an_observation_older_than_the_scheduled_one_is_not_taken() -> None:
    schedule = ChunkSchedule()
    schedule.replace(chunk([1.0, 1.0], stamp_ns=100), now_ns=100)
    assert not schedule.replace(chunk([9.0] * 8, stamp_ns=50), now_ns=100)


def test_remaining_steps_have_not_started() -> None:
    schedule = ChunkSchedule()
    schedule.replace(chunk([0.0, 1.0, 2.0], stamp_ns=1000), now_ns=1000)
    for now_ns, first in [(900, 0), (1000, 0), (1001, 1), (1050, 1), (1051, 2), (1100, 2)]:
        remaining = schedule.remaining(now_ns)
        assert remaining is not None and remaining.first_index == first
        assert remaining.actions[:, 0].tolist() == [0.0, 1.0, 2.0][first:]
        assert (remaining.stamp_ns, remaining.step_period_ns) == (1000, PERIOD)
    assert schedule.remaining(1101) is None


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_chunk_with_one_non_finite_value_is_refused_whole(bad: float) -> None:
    schedule = ChunkSchedule()
    schedule.replace(chunk([1.0, 1.0, 1.0]), now_ns=0)
    with pytest.raises(SpecError, match="1 non-finite values"):
        schedule.replace(chunk([5.0, bad, 5.0]), now_ns=0)
    action = schedule.sample(0)
    assert action is not None and action[0] == 1.0


@pytest.mark.parametrize("shape", [(0, 7), (8, 0), (56,)])
def test_a_misshapen_chunk_is_refused(shape: tuple[int, ...]) -> None:
    bad = ActionChunk(actions=np.zeros(shape, np.float32), stamp_ns=0, step_period_ns=PERIOD)
    with pytest.raises(SpecError, match="action chunk"):
        ChunkSchedule().replace(bad, now_ns=0)


def test_the_policys_own_array_is_not_touched() -> None:
    schedule = ChunkSchedule()
    schedule.replace(chunk([1.0]), now_ns=0)
    newer = chunk([2.0])
    schedule.replace(newer, now_ns=0)
    assert newer.actions[0, 0] == 2.0


def test_another_dimension_is_taken_without_blending() -> None:
    schedule = ChunkSchedule()
    schedule.replace(chunk([1.0]), now_ns=0)
    wide = ActionChunk(actions=np.full((1, 3), 5.0, np.float32), stamp_ns=0, step_period_ns=PERIOD)
    assert schedule.replace(wide, now_ns=0)
    action = schedule.sample(0)
    assert action is not None and action.tolist() == [5.0, 5.0, 5.0]


# Each event after a pause: ("chunk", inference latency, values, epoch lag) or, more rarely, ("reset",).
VALUES = st.lists(st.floats(-10, 10, width=32), min_size=3, max_size=8)
CHUNK = st.tuples(st.just("chunk"), st.integers(-60, 200), VALUES, st.sampled_from([0, 0, 0, 0, 1]))
RESET = st.tuples(st.just("reset"))
EVENTS = st.lists(
    st.tuples(st.integers(0, 90), st.one_of(CHUNK, CHUNK, CHUNK, CHUNK, RESET)), min_size=3, max_size=20
)


@settings(max_examples=200, deadline=None)
@given(EVENTS)
def test_no_past_step_runs_again_and_no_value_leaves_the_hull_of_what_was_proposed(
    events: list[tuple],
) -> None:
    schedule = ChunkSchedule()
    now, epoch = 1000, 0
    proposed: list[ActionChunk] = []
    for pause, event in events:
        now += pause
        if event[0] == "reset":
            epoch += 1
            schedule.reset(epoch)
            proposed.clear()
            assert schedule.sample(now) is None and schedule.remaining(now) is None
        else:
            _, latency, values, lag = event
            gripper = 1.0 if latency % 2 else -1.0
            newest = chunk(values, stamp_ns=now - latency, epoch=epoch - lag, gripper=gripper)
            if schedule.replace(newest, now):
                assert lag == 0, "a chunk of an older epoch was taken"
                proposed.append(newest)
        _check_sample(schedule, now, proposed)


def _check_sample(schedule: ChunkSchedule, now: int, proposed: list[ActionChunk]) -> None:
    action = schedule.sample(now)
    if action is None:
        return
    newest = proposed[-1]
    index = (now - newest.stamp_ns) // PERIOD
    assert 0 <= index < len(newest.actions), "the step due is not one of the newest chunk's present"
    # Whatever a chunk contributes now was due, in that chunk, at this step's start or later.
    due = max(newest.stamp_ns + index * PERIOD - PERIOD, 0)
    candidates = [
        float(row[0])
        for old in proposed
        for step, row in enumerate(old.actions)
        if old.stamp_ns + (step + 1) * PERIOD > due
    ]
    assert min(candidates) <= action[0] <= max(candidates)
    assert action[1] == newest.actions[index, 1]


@given(st.integers(0, 3), st.integers(0, 3))
def test_only_chunks_of_the_current_epoch_are_taken(current: int, other: int) -> None:
    schedule = ChunkSchedule()
    schedule.reset(current)
    assert schedule.replace(chunk([1.0], epoch=other), now_ns=0) == (current == other)


@pytest.mark.parametrize(("horizon", "fresh_until"), [(2, 75), (3, 125), (100, 150)])
def test_an_observation_is_wanted_once_the_execution_horizon_is_over(horizon: int, fresh_until: int) -> None:
    schedule = ChunkSchedule(execution_horizon=horizon)
    assert not schedule.is_fresh(1000)
    schedule.replace(chunk([0.0, 1.0, 2.0], stamp_ns=1000), now_ns=1000)
    assert schedule.is_fresh(1000 + fresh_until - 1)
    assert not schedule.is_fresh(1000 + fresh_until)
    schedule.reset(epoch=1)
    assert not schedule.is_fresh(1000)


def test_with_a_horizon_of_one_every_observation_is_wanted() -> None:
    schedule = ChunkSchedule(execution_horizon=1)
    schedule.replace(chunk([0.0, 1.0, 2.0], stamp_ns=1000), now_ns=1000)
    assert not schedule.is_fresh(1001)
