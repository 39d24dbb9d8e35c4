"""Which simulated worlds there are, and how each is evaluated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lightvla_ros.core.errors import ConfigError
from lightvla_ros.sim.libero.suites import MAX_STEPS, load_suite
from lightvla_ros.sim.world import World

TABLETOP = "tabletop"
WORLDS = (TABLETOP, *MAX_STEPS)
RENDERS = ("exact", "fast", "none")
_TABLETOP_MAX_STEPS = 250
# Steps of a chunk executed before the next inference: as in the node, and as LIBERO's protocol has it.
_TABLETOP_HORIZON, _LIBERO_HORIZON = 2, 8


class Expert(Protocol):
    """A scripted policy with privileged knowledge of the one kind of world it is made for."""

    def reset(self, world: Any) -> None:
        """Begin an episode, after the world's reset."""
        ...

    def act(self, world: Any) -> NDArray[np.float64]:
        """Return the action [7] for the present state, as `World.step` takes it."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class WorldConfig:
    """A world to be made; can be sent to another process, which a world cannot.

    Attributes:
        name: "tabletop" or a LIBERO suite.
        image_size: pixels, height and width of both camera images.
        render: "exact", "fast" (LIBERO: simplified meshes; the tabletop is fast as it is) or "none".
        randomize: how much the tabletop's scene changes from episode to episode, 0 to 1.

    Raises:
        ConfigError: a value is unknown, or the world has no such option.
    """

    name: str = TABLETOP
    image_size: int = 256
    render: str = "exact"
    randomize: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what no world can be made from."""
        for what, got, known in (("world", self.name, WORLDS), ("render", self.render, RENDERS)):
            if got not in known:
                raise ConfigError(what, got=repr(got), expected=f"one of {', '.join(known)}")
        if self.is_libero and self.randomize:
            raise ConfigError("randomize", got=self.randomize, expected="0: LIBERO's scenes are fixed")

    @property
    def is_libero(self) -> bool:
        """Whether it is a suite of LIBERO."""
        return self.name in MAX_STEPS

    @property
    def max_steps(self) -> int:
        """Control steps after which an episode has failed."""
        return MAX_STEPS.get(self.name, _TABLETOP_MAX_STEPS)

    @property
    def execution_horizon(self) -> int:
        """Steps of a chunk executed before the next inference."""
        return _LIBERO_HORIZON if self.is_libero else _TABLETOP_HORIZON

    def instructions(self) -> tuple[str, ...]:
        """Return what the world can ask for.

        Raises:
            ConfigError: LIBERO is not installed.
        """
        if self.is_libero:
            return tuple(task.key for task in load_suite(self.name))
        from lightvla_ros.sim.instructions import GOALS

        return tuple(GOALS)

    def sentences(self) -> tuple[str, ...]:
        """Return every sentence a policy may be told here."""
        if self.is_libero:
            return tuple(dict.fromkeys(task.instruction for task in load_suite(self.name)))
        from lightvla_ros.sim.instructions import WORDINGS

        return tuple(WORDINGS)

    def sentence(self, instruction: str, *, seed: int | None = None) -> str:
        """Return what a policy is told where the world is asked for one of its instructions.

        Args:
            instruction: one of `instructions`.
            seed: chooses one of the tabletop's wordings; None takes the standard one.
        """
        if self.is_libero:
            return next(task.instruction for task in load_suite(self.name) if task.key == instruction)
        if seed is None:
            return instruction
        from lightvla_ros.sim.instructions import GOALS, wording

        return wording(GOALS[instruction], seed)

    def seed(self, number: int, first: int) -> int:
        """Return the seed of an episode's reset, given the first episode's.

        The tabletop counts episodes. LIBERO counts initial states: each asks for every task first.
        """
        return first + (number // len(self.instructions()) if self.is_libero else number)

    def make(self) -> World:
        """Make the world, in the thread that will use it.

        Raises:
            ConfigError: LIBERO is not installed, or no graphics backend works.
        """
        if self.is_libero:
            from lightvla_ros.sim.libero.world import LiberoWorld

            return LiberoWorld(self.name, render=self.render, image_size=self.image_size)
        from lightvla_ros.sim.tabletop import Tabletop

        return Tabletop(image_size=self.image_size, render=self.render != "none", randomize=self.randomize)

    def make_expert(self) -> Expert:
        """Make the world's scripted expert."""
        if self.is_libero:
            from lightvla_ros.sim.libero.expert import LiberoExpert

            return LiberoExpert()
        from lightvla_ros.sim.expert import TabletopExpert

        return TabletopExpert()
