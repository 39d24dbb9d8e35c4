"""Episodes in a world one can calculate: a point on a line that has to go past a mark."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from lightvla_ros.core.observation import ActionChunk, Observation
from lightvla_ros.core.output_config import ScheduleConfig
from lightvla_ros.core.policy import Health, PolicySpec
from lightvla_ros.evaluation.rollout import EpisodeResult, Task, run_delayed_episode, run_episode
from lightvla_ros.sim.world import ACTION_NAMES, WorldState

PERIOD_S = 0.05
TASK = Task(number=4, instruction="go", told="go on", seed=7, max_steps=40)


class Line:
    """A `World`: x of the action is how far the point goes, the goal is at 3."""

    control_period_s = PERIOD_S
    joint_names = ()
    instruction = "go"

    def __init__(self) -> None:
        self.x = 0.0
        self.actions: list[NDArray[np.float64]] = []
        self.looks = 0

    def instructions(self) -> tuple[str, ...]:
        return ("go",)

    def set_goal(self, instruction: str) -> None:
        assert instruction == "go"

    def reset(self, *, instruction: str | None = None, seed: int = 0) -> WorldState:
        assert (instruction, seed) == ("go", 7)
        self.x, self.actions = 0.0, []
        return self.observe()

    def step(self, action: NDArray[np.float64]) -> None:
        assert action.shape == (7,) and action.dtype == np.float64
        self.actions.append(action)
        self.x += action[0]

    def observe(self) -> WorldState:
        self.looks += 1
        return WorldState(
            images={},
            eef_position=np.array([self.x, 0.0, 0.0]),
            eef_quaternion=np.array([0.0, 0.0, 0.0, 1.0]),
            joint_positions=np.zeros(7),
            gripper_positions=np.zeros(2),
        )

    def is_success(self) -> bool:
        return self.x >= 3.0 - 1e-9

    def close(self) -> None:
        pass


class Walker:
    """A `Policy` of eight steps: from where it sees itself, 0.1 at a time with the gripper closed."""

    health = Health()
    spec = PolicySpec(
        name="walker",
        backend="none",
        camera_names=("eye",),
        grid=(2, 2),
        chunk_size=8,
        action_names=ACTION_NAMES,
        proprio_dim=8,
        step_period_ns=round(PERIOD_S * 1e9),
    )

    def __init__(self) -> None:
        self.seen: list[tuple[int, float]] = []

    def check_instruction(self, instruction: str) -> None:
        pass

    def predict_chunk(self, observation: Observation) -> ActionChunk:
        assert observation.instruction == "go on"
        self.seen.append((observation.stamp_ns, float(observation.proprio[0])))
        actions = np.zeros((8, 7), dtype=np.float32)
        actions[:, 0], actions[:, 6] = 0.1, 1.0
        return ActionChunk(
            actions=actions,
            stamp_ns=observation.stamp_ns,
            step_period_ns=self.spec.step_period_ns,
            keep_masks={"eye": np.array([[True, False], [False, False]])},
            timings_ms={"vision": 2.0},
            instruction=observation.instruction,
        )

    def close(self) -> None:
        pass


def delayed(delay_s: float, mode: str = "continuous", horizon: int = 2) -> tuple[EpisodeResult, Line, Walker]:
    world, policy = Line(), Walker()
    schedule = ScheduleConfig(mode=mode, execution_horizon=horizon)
    return run_delayed_episode(policy, world, TASK, delay_s=delay_s, schedule=schedule), world, policy


def test_a_world_that_waits_sees_every_inference_before_the_next_step() -> None:
    world, policy = Line(), Walker()
    result = run_episode(policy, world, TASK, execution_horizon=4)
    assert result.success and result.steps == 30
    assert (result.number, result.seed, result.instruction, result.told) == (4, 7, "go", "go on")
    assert [stamp for stamp, _ in policy.seen] == [200_000_000 * i for i in range(8)]
    np.testing.assert_allclose([x for _, x in policy.seen], [0.4 * i for i in range(8)], atol=1e-6)
    assert result.ages_ms[:5] == (0.0, 50.0, 100.0, 150.0, 0.0)
    assert result.retained == (1,) * 8 and result.stages_ms == {"vision": (2.0,) * 8}
    assert world.looks == 8  # nothing is rendered that nobody asks for


def test_steps_run_out_in_the_middle_of_a_chunk() -> None:
    task = Task(instruction="go", told="go on", seed=7, max_steps=6)
    result = run_episode(Walker(), Line(), task, execution_horizon=4)
    assert not result.success and result.steps == 6 == len(result.ages_ms)


def test_without_delay_a_world_that_goes_on_is_like_one_that_waits() -> None:
    result, world, policy = delayed(0.0, horizon=4)
    waited = run_episode(Walker(), Line(), TASK, execution_horizon=4)
    assert result.steps == waited.steps and result.ages_ms == waited.ages_ms
    assert [stamp for stamp, _ in policy.seen] == [200_000_000 * i for i in range(8)]


def test_a_delay_costs_its_time_at_the_start_and_ages_every_action() -> None:
    result, world, _ = delayed(0.1)
    assert result.success and result.steps == 32
    assert [action[0] for action in world.actions[:3]] == pytest.approx([0.0, 0.0, 0.1], abs=1e-6)
    assert len(result.ages_ms) == 30 and min(result.ages_ms) == 100.0 and max(result.ages_ms) == 150.0


def test_a_chunk_that_comes_after_all_its_steps_moves_nothing() -> None:
    result, world, _ = delayed(0.4)
    assert not result.success and result.ages_ms == ()
    assert all(not action.any() for action in world.actions)


def test_one_inference_at_a_time() -> None:
    _, _, policy = delayed(0.2, horizon=1)
    stamps = [stamp for stamp, _ in policy.seen]
    assert np.diff(stamps).min() >= 200_000_000


def test_standing_still_keeps_the_gripper() -> None:
    _, world, _ = delayed(0.2, mode="sync", horizon=3)
    still = [action for action in world.actions if not action[:6].any()]
    assert [action[6] for action in still[:4]] == [0.0] * 4
    assert {action[6] for action in still[4:]} == {1.0}


def test_a_result_of_a_failure_tells_the_task() -> None:
    result = TASK.failed("lost")
    assert (result.number, result.seed, result.told, result.error, result.success) == (
        4,
        7,
        "go on",
        "lost",
        False,
    )
