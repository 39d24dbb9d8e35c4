from __future__ import annotations

import numpy as np
import pytest

from lightvla_ros.sim.expert import TabletopExpert
from lightvla_ros.sim.instructions import GOALS
from lightvla_ros.sim.tabletop import Tabletop


@pytest.fixture(scope="module")
def world() -> Tabletop:
    return Tabletop(render=False)


def _steps_to_success(world: Tabletop, limit: int = 110) -> int | None:
    expert = TabletopExpert()
    for step in range(limit):
        action = expert.act(world)
        assert np.abs(action[:6]).max() <= 0.8
        world.step(action)
        if world.is_success():
            return step + 1
    return None


@pytest.mark.parametrize("instruction", list(GOALS))
def test_the_expert_fulfils_every_instruction(world: Tabletop, instruction: str) -> None:
    for seed in (100, 101):
        world.reset(instruction=instruction, seed=seed)
        assert _steps_to_success(world) is not None


def test_the_expert_takes_up_an_object_it_lost_on_the_way(world: Tabletop) -> None:
    expert = TabletopExpert()
    world.reset(instruction="pick up the green cube and place it on the plate", seed=5)
    while world.object_position()[2] < 0.08:
        world.step(expert.act(world))
    for _ in range(8):
        world.step(np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0]))
    assert world.object_position()[2] < 0.05
    assert not world.is_success()
    assert _steps_to_success(world) is not None


def test_the_expert_acts_on_a_goal_given_on_the_way(world: Tabletop) -> None:
    expert = TabletopExpert()
    world.reset(instruction="pick up the red cube and place it in the basket", seed=6)
    for _ in range(6):
        world.step(expert.act(world))
    world.set_goal("pick up the blue cube and place it on the plate")
    assert _steps_to_success(world) is not None


def test_an_object_held_over_its_target_is_no_success(world: Tabletop) -> None:
    expert = TabletopExpert()
    world.reset(instruction="pick up the red cube and place it on the plate", seed=7)
    for _ in range(110):
        world.step(expert.act(world))
        if world.over_target() and world.finger_opening() < 0.025:
            assert not world.is_success()
        if world.is_success():
            break
    assert world.finger_opening() > 0.03
