"""A policy's closed-loop success in a simulated world, episodes in parallel."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path

from lightvla_ros.core.errors import ConfigError, LightVlaError
from lightvla_ros.core.output_config import ScheduleConfig
from lightvla_ros.core.policy import Policy
from lightvla_ros.evaluation.episode_video import EpisodeVideo
from lightvla_ros.evaluation.expert_policy import ExpertPolicy
from lightvla_ros.evaluation.rollout import (
    EpisodeResult,
    OnInference,
    Task,
    run_delayed_episode,
    run_episode,
)
from lightvla_ros.sim.episode_pool import run_episodes
from lightvla_ros.sim.ray_pool import RayCluster
from lightvla_ros.sim.worlds import WorldConfig


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What to evaluate, and how.

    Attributes:
        load: makes the policy in each process, so it must be picklable where there are several; None is the
            world's scripted expert.
        episodes: how many; the world's instructions come by turns.
        world: where. The tabletop resets episode i with seed + i; LIBERO takes initial state `seed` for
            every task, then the next one.
        seed: of the first episode.
        max_steps: control steps after which an episode has failed; None: as many as the world's benchmark.
        execution_horizon: steps of a chunk executed per inference; None: as many as the world's benchmark.
        delay_s: None lets the world wait for inference. A number lets it go on, and each chunk take effect
            so many seconds of the world's time after its observation.
        schedule: with a delay, when inference starts and how chunks are joined; its horizon is
            `execution_horizon`.
        vary_wording: tell the tabletop's policy in other words than the standard sentence too.
        swap_instructions: tell it the world's next instruction instead, which is about another object: a
            policy that listens then fails what it is judged by.
        videos: directory for videos of episodes that fail; None for none.
        workers: processes; 1 evaluates in this one.
        cluster: runs the workers on Ray instead.

    Raises:
        ConfigError: a number is out of range, or the world has no other wordings.
    """

    load: Callable[[], Policy] | None
    episodes: int
    world: WorldConfig = field(default_factory=WorldConfig)
    seed: int = 0
    max_steps: int | None = None
    execution_horizon: int | None = None
    delay_s: float | None = None
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    vary_wording: bool = False
    swap_instructions: bool = False
    videos: Path | None = None
    workers: int = 1
    cluster: RayCluster | None = None

    def __post_init__(self) -> None:
        """Refuse numbers that mean nothing."""
        for name in ("episodes", "max_steps", "execution_horizon", "workers"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"evaluation: {name}", got=value, expected="at least 1")
        if self.delay_s is not None and not 0.0 <= self.delay_s <= 60.0:
            raise ConfigError("evaluation: delay_s", got=self.delay_s, expected="0 to 60 s")
        if self.vary_wording and self.world.is_libero:
            raise ConfigError("wording", got="varied", expected="standard: LIBERO has one sentence a task")

    def task(self, number: int) -> Task:
        """Return what an episode asks for."""
        return Task(
            number=number,
            instruction=self._instruction(number),
            told=self._told(number),
            seed=self.world.seed(number, self.seed),
            max_steps=self.max_steps or self.world.max_steps,
        )

    @property
    def horizon(self) -> int:
        """Steps of a chunk executed per inference."""
        return self.execution_horizon or self.world.execution_horizon

    def _instruction(self, number: int) -> str:
        return self._instructions[number % len(self._instructions)]

    def _told(self, number: int) -> str:
        told = self._instruction(number + 1 if self.swap_instructions else number)
        return self.world.sentence(told, seed=self.seed + number if self.vary_wording else None)

    @cached_property
    def _instructions(self) -> tuple[str, ...]:
        return self.world.instructions()


def evaluate(evaluation: Evaluation, numbers: Iterable[int] | None = None) -> Iterator[EpisodeResult]:
    """Run episodes, yielding each as it ends; with several processes in any order.

    What goes wrong in an episode, be it the world, the policy or its process, becomes the `error` of its
    result; the others go on.

    Args:
        evaluation: what to evaluate.
        numbers: which of its episodes; None is all of them.

    Raises:
        LightVlaError: the policy cannot be loaded, or the world not be made.
    """
    numbers = range(evaluation.episodes) if numbers is None else numbers

    def lost(number: int, why: str) -> EpisodeResult:
        return evaluation.task(number).failed(why)

    make = partial(_Evaluator, evaluation)
    if evaluation.cluster is not None:
        yield from evaluation.cluster.run_episodes(make, numbers, workers=evaluation.workers, lost=lost)
    else:
        yield from run_episodes(make, numbers, workers=evaluation.workers, lost=lost)


class _Evaluator:
    """`EpisodeRunner` of an evaluation: a policy and a world."""

    def __init__(self, evaluation: Evaluation) -> None:
        self._evaluation = evaluation
        self._world = evaluation.world.make()
        self._policy = self._load()

    def run(self, number: int) -> EpisodeResult:
        task = self._evaluation.task(number)
        try:
            return self._run(task)
        except LightVlaError as error:
            return self._lost(task, str(error))
        except Exception as error:  # noqa: BLE001  # of one episode, of whatever kind; the others go on
            return self._lost(task, "".join(traceback.format_exception(error)))

    def close(self) -> None:
        self._world.close()
        self._policy.close()

    def _lost(self, task: Task, why: str) -> EpisodeResult:
        """Give up an episode, and the world in whatever state that is; it may not even close."""
        with contextlib.suppress(Exception):
            self._world.close()
        self._world = self._evaluation.world.make()
        if self._evaluation.load is None:
            self._policy = self._load()
        return task.failed(why)

    def _load(self) -> Policy:
        load = self._evaluation.load
        return ExpertPolicy(self._evaluation.world.make_expert(), self._world) if load is None else load()

    def _run(self, task: Task) -> EpisodeResult:
        if self._evaluation.videos is None:
            return self._act(task, None)
        with EpisodeVideo(self._evaluation.videos, task) as video:
            result = self._act(task, video)
            video.is_wanted = not result.success
        return result

    def _act(self, task: Task, on_inference: OnInference | None) -> EpisodeResult:
        evaluation, policy, world = self._evaluation, self._policy, self._world
        if evaluation.delay_s is None:
            return run_episode(
                policy, world, task, execution_horizon=evaluation.horizon, on_inference=on_inference
            )
        return run_delayed_episode(
            policy,
            world,
            task,
            delay_s=evaluation.delay_s,
            schedule=replace(evaluation.schedule, execution_horizon=evaluation.horizon),
            on_inference=on_inference,
        )
