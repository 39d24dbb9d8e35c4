"""What can be asked for on the tabletop, and the ways of saying it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np

from lightvla_ros.sim.tabletop_scene import OBJECTS, TARGETS, GraspObject, Target

# The first of each is the standard one.
_TAKE = ("pick up", "grab", "take", "lift")
_PUT = ("place", "put", "drop")
_NOUNS = {"cube": ("cube", "block"), "can": ("can", "tin")}
_PREPOSITIONS = {"in the": ("in the", "into the"), "on the": ("on the", "onto the")}
# The standard sentence is what evaluation asks with, so it comes more often than any other.
_STANDARD_SHARE = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """An object and where to put it."""

    item: GraspObject
    target: Target

    @property
    def instruction(self) -> str:
        """The standard sentence that asks for it."""
        return wordings(self)[0]


def wordings(goal: Goal) -> tuple[str, ...]:
    """Return every sentence that asks for a goal, the standard one first."""
    colour, noun = goal.item.name.split()
    things = [f"the {colour} {word}" for word in _NOUNS[noun]]
    places = [f"{words} {goal.target.name}" for words in _PREPOSITIONS[goal.target.preposition]]
    two_verbs = (
        f"{take} {thing} and {put} it {place}"
        for take, thing, put, place in product(_TAKE, things, _PUT, places)
    )
    one_verb = (f"{put} {thing} {place}" for put, thing, place in product(_PUT, things, places))
    return (*two_verbs, *one_verb)


GOALS = {
    goal.instruction: goal for goal in (Goal(item=item, target=to) for to in TARGETS for item in OBJECTS)
}
# The eight standard sentences come first.
WORDINGS = {**GOALS, **{text: goal for goal in GOALS.values() for text in wordings(goal)}}


def wording(goal: Goal, seed: int) -> str:
    """Choose one of a goal's sentences, the same for the same seed."""
    rng = np.random.default_rng([seed, 3])
    if rng.random() < _STANDARD_SHARE:
        return goal.instruction
    return str(rng.choice(wordings(goal)))
