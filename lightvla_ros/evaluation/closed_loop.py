"""A policy's closed-loop success in the tabletop world, episodes in parallel."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar

from lightvla_ros.core.errors import ConfigError
from lightvla_ros.core.policy import Policy
from lightvla_ros.evaluation.rollout import EpisodeResult, run_episode
from lightvla_ros.sim.episode_pool import run_episodes
from lightvla_ros.sim.instructions import GOALS, wording
from lightvla_ros.sim.tabletop import Tabletop


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What to evaluate, and how.

    Attributes:
        load: makes the policy in each process, so it must be picklable where there are several.
        episodes: how many; episode i has seed + i and the world's instructions by turns.
        seed: of the first episode.
        max_steps: control steps after which an episode has failed.
        execution_horizon: steps of a chunk executed per inference.
        randomize: how much the scene changes from episode to episode, 0 to 1; see `Tabletop`.
        vary_wording: tell the policy in other words than the standard sentence too.
        swap_instructions: tell it the world's next instruction instead, which is about another object: a
            policy that listens then fails what it is judged by.
        workers: processes; 1 evaluates in this one.

    Raises:
        ConfigError: a number is out of range.
    """

    load: Callable[[], Policy]
    episodes: int
    seed: int = 0
    max_steps: int = 250
    execution_horizon: int = 2
    randomize: float = 0.0
    vary_wording: bool = False
    swap_instructions: bool = False
    workers: int = 1

    def __post_init__(self) -> None:
        """Refuse numbers that mean nothing."""
        for name in ("episodes", "max_steps", "execution_horizon", "workers"):
            if getattr(self, name) < 1:
                raise ConfigError(f"evaluation: {name}", got=getattr(self, name), expected="at least 1")

    def instruction(self, number: int) -> str:
        """Return what the world asks for in an episode."""
        return _INSTRUCTIONS[number % len(_INSTRUCTIONS)]

    def told(self, number: int) -> str:
        """Return what the policy is told in an episode."""
        told = self.instruction(number + 1 if self.swap_instructions else number)
        return wording(GOALS[told], self.seed + number) if self.vary_wording else told


_INSTRUCTIONS = tuple(GOALS)


def evaluate(evaluation: Evaluation) -> Iterator[EpisodeResult]:
    """Run the episodes, yielding each as it ends; with several processes in any order.

    Raises:
        LightVlaError: the policy cannot be loaded, or fails.
    """
    if evaluation.workers == 1:
        policy, world = evaluation.load(), Tabletop(randomize=evaluation.randomize)
        try:
            for number in range(evaluation.episodes):
                yield _episode(evaluation, policy, world, number)
        finally:
            world.close()
            policy.close()
        return
    yield from run_episodes(
        _Worker.run,
        evaluation.episodes,
        workers=evaluation.workers,
        set_up=_Worker.start,
        arguments=(evaluation,),
    )


class _Worker:
    """What a process of the pool keeps from episode to episode."""

    evaluation: ClassVar[Evaluation]

    @classmethod
    def start(cls, evaluation: Evaluation) -> None:
        cls.evaluation = evaluation

    @classmethod
    def run(cls, number: int) -> EpisodeResult:
        return _episode(cls.evaluation, *cls._parts(), number)

    @classmethod
    @functools.cache
    def _parts(cls) -> tuple[Policy, Tabletop]:
        # Not in `start`, which must not fail.
        return cls.evaluation.load(), Tabletop(randomize=cls.evaluation.randomize)


def _episode(evaluation: Evaluation, policy: Policy, world: Tabletop, number: int) -> EpisodeResult:
    return run_episode(
        policy,
        world,
        instruction=evaluation.instruction(number),
        told=evaluation.told(number),
        seed=evaluation.seed + number,
        max_steps=evaluation.max_steps,
        execution_horizon=evaluation.execution_horizon,
    )
