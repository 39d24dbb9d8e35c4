"""The schedule's promises, by example and by property."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightvla_ros.core.chunk_schedule import ChunkSchedule
from lightvla_ros.core.errors import ChunkError
from lightvla_ros.core.observation import ActionChunk
from lightvla_ros.core.output_config import ScheduleConfig

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
    schedule = ChunkSchedule(ScheduleConfig(blend_new_weight=0.7))
    schedule.replace(chunk([1.0, 1.0, 1.0], gripper=-1.0), now_ns=0)
    schedule.replace(chunk([2.0, 2.0, 2.0], stamp_ns=50, gripper=1.0), now_ns=50)
    blended = [schedule.sample(now) for now in (50, 100, 150)]
    np.testing.assert_allclose([action[0] for action in blended if action is not None], [1.7, 1.7, 2.0])
    assert [action[1] for action in blended if action is not None] == [1.0, 1.0, 1.0]


def test_a_step_already_begun_is_blended_with_what_is_due_now_and_not_with_the_past() -> None:
    schedule = ChunkSchedule(ScheduleConfig(blend_new_weight=0.5))
    schedule.replace(chunk([0.0, 10.0, 10.0]), now_ns=0)
    schedule.replace(chunk([20.0, 20.0], stamp_ns=25), now_ns=60)
    action = schedule.sample(60)
    assert action is not None and action[0] == 15.0


def test_a_chunk_that_begins_later_leaves_the_one_before_in_force_until_then() -> None:
    schedule = ChunkSchedule(ScheduleConfig(blend_new_weight=1.0))
    schedule.replace(chunk([1.0, 2.0, 3.0], stamp_ns=1000), now_ns=1000)
    assert schedule.replace(chunk([7.0, 8.0], stamp_ns=1075), now_ns=1060)
    assert [value(schedule, now) for now in (1060, 1074, 1075, 1124, 1125, 1175)] == [
        2.0, 2.0, 7.0, 7.0, 8.0, None,
    ]  # fmt: skip


def test_an_observation_older_than_the_scheduled_one_is_not_taken() -> None:
    schedule = ChunkSchedule()
    schedule.replace(chunk([1.0, 1.0], stamp_ns=100), now_ns=100)
    assert not schedule.replace(chunk([9.0] * 8, stamp_ns=50), now_ns=100)


def test_remaining_steps_have_not_started() -> None:
    schedule = ChunkSchedule()
    schedule.replace(chunk([0.0, 1.0, 2.0], stamp_ns=1000), now_ns=1000)
    for now_ns, first in [(900, 0), (1000, 0), (1001, 1), (1050, 1), (1051, 2), (1100, 2)]:
        remaining = schedule.remaining(now_ns)
        assert remaining is not None and remaining.begins_ns == 1000 + first * PERIOD
        assert remaining.actions[:, 0].tolist() == [0.0, 1.0, 2.0][first:]
        assert (remaining.stamp_ns, remaining.step_period_ns) == (1000, PERIOD)
    assert schedule.remaining(1101) is None


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_chunk_with_one_non_finite_value_is_refused_whole(bad: float) -> None:
    schedule = ChunkSchedule()
    schedule.replace(chunk([1.0, 1.0, 1.0]), now_ns=0)
    with pytest.raises(ChunkError, match="1 non-finite values"):
        schedule.replace(chunk([5.0, bad, 5.0]), now_ns=0)
    action = schedule.sample(0)
    assert action is not None and action[0] == 1.0


@pytest.mark.parametrize("shape", [(0, 7), (8, 0), (56,)])
def test_a_misshapen_chunk_is_refused(shape: tuple[int, ...]) -> None:
    bad = ActionChunk(actions=np.zeros(shape, np.float32), stamp_ns=0, step_period_ns=PERIOD)
    with pytest.raises(ChunkError, match="action chunk"):
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


@given(st.integers(0, 3), st.integers(0, 3))
def test_only_chunks_of_the_current_epoch_are_taken(current: int, other: int) -> None:
    schedule = ChunkSchedule()
    schedule.reset(current)
    assert schedule.replace(chunk([1.0], epoch=other), now_ns=0) == (current == other)


@pytest.mark.parametrize(("horizon", "wanted_from"), [(2, 75), (3, 125), (100, 150)])
def test_an_observation_is_wanted_once_the_execution_horizon_is_over(horizon: int, wanted_from: int) -> None:
    schedule = ChunkSchedule(ScheduleConfig(execution_horizon=horizon))
    assert schedule.wants(1000, 1000)
    schedule.replace(chunk([0.0, 1.0, 2.0], stamp_ns=1000), now_ns=1000)
    assert not schedule.wants(1000 + wanted_from - 1, now_ns=2000)
    assert schedule.wants(1000 + wanted_from, now_ns=2000)
    schedule.reset(epoch=1)
    assert schedule.wants(1000, now_ns=2000)


def test_with_a_horizon_of_one_every_observation_is_wanted() -> None:
    schedule = ChunkSchedule(ScheduleConfig(execution_horizon=1))
    schedule.replace(chunk([0.0, 1.0, 2.0], stamp_ns=1000), now_ns=1000)
    assert schedule.wants(1001, now_ns=1001)


def test_in_mode_threshold_inference_starts_early_enough_for_its_chunk_to_come_in_time() -> None:
    schedule = ChunkSchedule(ScheduleConfig(mode="threshold", threshold=0.5))
    schedule.replace(chunk([0.0] * 8, stamp_ns=1000), now_ns=1060)
    # Half of 8 steps of 50 are left at 1200; chunks take 60, so the next one has to start at 1140.
    assert not schedule.wants(1139, now_ns=1139)
    assert schedule.wants(1140, now_ns=1140)


def test_in_mode_threshold_the_slowest_chunks_count() -> None:
    schedule = ChunkSchedule(ScheduleConfig(mode="threshold", threshold=0.0))
    for number in range(40):
        latency = 150 if number % 10 == 0 else 20
        schedule.replace(chunk([0.0] * 8, stamp_ns=1000 * number), now_ns=1000 * number + latency)
    assert not schedule.wants(39_249, now_ns=39_249)
    assert schedule.wants(39_250, now_ns=39_250)


def test_in_mode_sync_a_chunk_starts_when_it_comes_and_ends_with_the_horizon() -> None:
    schedule = ChunkSchedule(ScheduleConfig(mode="sync", execution_horizon=2))
    assert schedule.replace(chunk([0.0, 1.0, 2.0, 3.0], stamp_ns=1000), now_ns=1500)
    assert [value(schedule, now) for now in (1500, 1549, 1550, 1599, 1600)] == [0.0, 0.0, 1.0, 1.0, None]
    remaining = schedule.remaining(1501)
    assert remaining is not None
    assert (remaining.stamp_ns, remaining.begins_ns, len(remaining.actions)) == (1000, 1550, 1)


def test_in_mode_sync_only_an_observation_of_the_robot_standing_still_is_wanted() -> None:
    schedule = ChunkSchedule(ScheduleConfig(mode="sync", execution_horizon=2))
    schedule.replace(chunk([0.0, 1.0, 2.0, 3.0], stamp_ns=1000), now_ns=1500)
    assert not schedule.wants(1599, now_ns=1700)
    assert schedule.wants(1600, now_ns=1700)


def value(schedule: ChunkSchedule, now_ns: int) -> float | None:
    """What is due, without the gripper."""
    action = schedule.sample(now_ns)
    return None if action is None else float(action[0])


def test_positions_are_interpolated_and_the_gripper_is_not() -> None:
    schedule = ChunkSchedule(ScheduleConfig(actions="positions"))
    positions = chunk([0.0, 10.0, 20.0], stamp_ns=1000)
    positions.actions[1:, 1] = -1.0
    schedule.replace(positions, now_ns=1000)
    assert [value(schedule, now) for now in (1000, 1025, 1050, 1075, 1100, 1149, 1150)] == [
        0.0, 5.0, 10.0, 15.0, 20.0, 20.0, None,
    ]  # fmt: skip
    grippers = [schedule.sample(now) for now in (1049, 1050)]
    assert [action[1] for action in grippers if action is not None] == [1.0, -1.0]


def test_where_positions_of_the_old_chunk_end_the_new_ones_are_not_bent() -> None:
    schedule = ChunkSchedule(ScheduleConfig(actions="positions", blend_new_weight=0.5))
    schedule.replace(chunk([0.0, 10.0, 20.0], stamp_ns=1000), now_ns=1000)
    schedule.replace(chunk([5.0, 15.0, 25.0, 35.0], stamp_ns=1025), now_ns=1025)
    assert [value(schedule, now) for now in range(1025, 1175, 25)] == [5.0, 10.0, 15.0, 20.0, 25.0, 30.0]


def test_a_delta_is_the_same_rate_for_the_whole_step() -> None:
    schedule = ChunkSchedule(ScheduleConfig(actions="deltas"))
    schedule.replace(chunk([1.0, 2.0], stamp_ns=1000), now_ns=1000)
    assert {value(schedule, now) for now in range(1000, 1050)} == {1.0}


def test_an_ensemble_weighs_chunks_by_age_as_act_does() -> None:
    schedule = ChunkSchedule(ScheduleConfig(blending="ensemble", ensemble_decay=0.5))
    schedule.replace(chunk([1.0] * 4, stamp_ns=0), now_ns=0)
    schedule.replace(chunk([2.0] * 4, stamp_ns=50), now_ns=50)
    schedule.replace(chunk([4.0] * 4, stamp_ns=100, gripper=-1.0), now_ns=100)
    weights = np.exp([0.0, -0.5, -1.0])
    assert value(schedule, 100) == pytest.approx(weights @ [1.0, 2.0, 4.0] / weights.sum())
    # At 200 the first chunk is over: the second is the oldest that has a say.
    assert value(schedule, 200) == pytest.approx(weights[:2] @ [2.0, 4.0] / weights[:2].sum())
    assert value(schedule, 250) == 4.0
    action = schedule.sample(100)
    assert action is not None and action[1] == -1.0


def test_an_ensemble_forgets_the_chunks_of_an_older_epoch() -> None:
    schedule = ChunkSchedule(ScheduleConfig(blending="ensemble"))
    schedule.replace(chunk([9.0] * 4), now_ns=0)
    schedule.reset(epoch=1)
    schedule.replace(chunk([1.0] * 4, epoch=1), now_ns=0)
    assert value(schedule, 0) == 1.0


# Each event after a pause: ("chunk", inference latency, values, epoch lag), ("reset",) or ("sample",).
VALUES = st.lists(st.floats(-10, 10, width=32), min_size=3, max_size=8)
CHUNK = st.tuples(st.just("chunk"), st.integers(-60, 200), VALUES, st.sampled_from([0, 0, 0, 0, 1]))
OTHER = st.one_of(st.tuples(st.just("reset")), st.tuples(st.just("sample")))
EVENTS = st.lists(
    st.tuples(st.integers(0, 90), st.one_of(CHUNK, CHUNK, CHUNK, OTHER)), min_size=3, max_size=20
)
CONFIGS = st.builds(
    ScheduleConfig,
    mode=st.sampled_from(["continuous", "threshold", "sync"]),
    actions=st.sampled_from(["deltas", "positions"]),
    blending=st.sampled_from(["overlap", "ensemble"]),
    blend_new_weight=st.floats(0.01, 1.0),
    ensemble_decay=st.floats(0.0, 2.0),
    execution_horizon=st.integers(1, 9),
)


class Course:
    """A schedule under events, and what its promises are checked against."""

    def __init__(self, config: ScheduleConfig) -> None:
        self.schedule = ChunkSchedule(config)
        self.now = 1000
        self.epoch = 0
        self.taken: list[tuple[ActionChunk, int]] = []  # and when its first step begins
        self.before: tuple[ActionChunk, int] | None = None  # in force until the newest begins
        self.newest_due: int | None = None

    def reset(self) -> None:
        self.epoch += 1
        self.schedule.reset(self.epoch)
        self.taken.clear()
        self.before = None
        self.newest_due = None
        assert self.schedule.sample(self.now) is None and self.schedule.remaining(self.now) is None

    def offer(self, latency: int, values: list[float], lag: int) -> None:
        gripper = 1.0 if latency % 2 else -1.0
        newest = chunk(values, stamp_ns=self.now - latency, epoch=self.epoch - lag, gripper=gripper)
        in_force = self.in_force()
        if self.schedule.replace(newest, self.now):
            assert lag == 0, "a chunk of an older epoch was taken"
            self.before = in_force
            begins = self.now if self.schedule.config.mode == "sync" else newest.stamp_ns
            self.taken.append((newest, begins))

    def in_force(self) -> tuple[ActionChunk, int] | None:
        if self.taken and self.taken[-1][1] <= self.now:
            return self.taken[-1]
        return self.before

    def check(self) -> None:
        step = self.schedule.due(self.now)
        if step is None:
            return
        in_force = self.in_force()
        assert in_force is not None, "a step is due before any chunk has begun"
        newest, begins = in_force
        index = (self.now - begins) // PERIOD
        assert 0 <= index < len(newest.actions), "the step due is not one of the chunk's present"
        assert step.begins_ns == begins + index * PERIOD <= self.now, "a step is due in its own period only"
        assert self.newest_due is None or step.begins_ns > self.newest_due - PERIOD, "a step came back"
        self.newest_due = max(step.begins_ns, self.newest_due or step.begins_ns)
        assert step.action[1] == newest.actions[index, 1], "the gripper was blended"
        said = self._said_since(step.begins_ns)
        assert min(said) <= step.action[0] <= max(said), "outside of what chunks said of now and later"

    def _said_since(self, begins_ns: int) -> list[float]:
        """Every value of a step that was not over one period before a step begins."""
        return [
            float(row[0])
            for taken, begins in self.taken
            for number, row in enumerate(taken.actions)
            if begins + (number + 1) * PERIOD > begins_ns - PERIOD
        ]


@settings(max_examples=400, deadline=None)
@given(CONFIGS, EVENTS)
def test_any_course_of_chunks_resets_and_samples_keeps_the_promises(
    config: ScheduleConfig, events: list[tuple]
) -> None:
    course = Course(config)
    for pause, event in events:
        course.now += pause
        if event[0] == "reset":
            course.reset()
        elif event[0] == "chunk":
            course.offer(*event[1:])
        course.check()


@settings(max_examples=100, deadline=None)
@given(VALUES, st.integers(1, 49), st.integers(0, 149))
def test_deltas_are_consumed_exactly_once_whatever_the_tick_rate(
    values: list[float], tick: int, offset: int
) -> None:
    """The motion is the sum of rate times time, so ticks of any rate add up to the chunk's own sum."""
    schedule = ChunkSchedule(ScheduleConfig(actions="deltas"))
    schedule.replace(chunk(values, stamp_ns=offset), now_ns=offset)
    moved, now, end = 0.0, offset, offset + len(values) * PERIOD
    while now < end:
        step = schedule.due(now)
        assert step is not None
        lasts = min(tick, step.begins_ns + PERIOD - now)  # until the next tick or the next step
        moved += float(step.action[0]) * lasts / PERIOD
        now += lasts
    assert schedule.due(end) is None
    assert moved == pytest.approx(sum(values), abs=1e-4)
