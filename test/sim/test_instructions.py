from __future__ import annotations

from collections import Counter

import pytest

from lightvla_ros.sim.instructions import GOALS, WORDINGS, wording, wordings
from lightvla_ros.sim.tabletop import Tabletop


@pytest.fixture(scope="module")
def world() -> Tabletop:
    return Tabletop(render=False)


def test_the_standard_sentences_come_first_and_are_the_worlds_own(world: Tabletop) -> None:
    assert tuple(WORDINGS)[:8] == world.instructions() == tuple(GOALS)
    for goal in GOALS.values():
        assert wordings(goal)[0] == goal.instruction


def test_no_sentence_means_two_things() -> None:
    assert len(WORDINGS) == sum(len(set(wordings(goal))) for goal in GOALS.values())


def test_the_world_understands_every_wording(world: Tabletop) -> None:
    for text, goal in WORDINGS.items():
        world.set_goal(text.upper())
        assert world.goal == goal
    world.set_goal("grab the yellow tin and drop it onto the plate")
    assert world.instruction == "pick up the yellow can and place it on the plate"


def test_a_seed_chooses_the_wording_and_all_words_occur() -> None:
    goal = next(iter(GOALS.values()))
    chosen = [wording(goal, seed) for seed in range(400)]
    assert chosen == [wording(goal, seed) for seed in range(400)]
    assert {WORDINGS[text] for text in chosen} == {goal}
    words = Counter(word for text in chosen for word in set(text.split()))
    assert min(words[w] for w in "pick grab take lift cube block place put drop in into".split()) > 20
    assert 80 < chosen.count(goal.instruction) < 130
