"""One closed-loop episode: a policy acts in a world until the world is satisfied or the steps run out.

Either the world waits for every inference, as benchmarks have it, or it goes on meanwhile, as a robot does.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from lightvla_ros.core.chunk_schedule import ChunkSchedule
from lightvla_ros.core.observation import ActionChunk, Observation
from lightvla_ros.core.output_config import ScheduleConfig
from lightvla_ros.core.policy import Policy
from lightvla_ros.sim.world import World

# Takes each observation with the chunk that answers it.
OnInference = Callable[[Observation, ActionChunk], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeResult:
    """How one episode went.

    Attributes:
        number: which of the evaluation's episodes it is.
        seed: of the world's reset.
        instruction: what the world asks for and judges.
        told: what the policy was told, the same unless it was misled on purpose.
        success: whether the world says so within the step limit.
        steps: control steps taken.
        retained: visual tokens retained at each inference.
        ages_ms: of each step that acted, its action's age: from the observation's stamp to the command.
            Steps without one (no action was due in time) stood still.
        stages_ms: stage -> milliseconds of each inference.
        error: what failed other than the policy's skill; such an episode is not judged.
    """

    number: int = 0
    seed: int
    instruction: str
    told: str
    success: bool
    steps: int
    retained: tuple[int, ...] = ()
    ages_ms: tuple[float, ...] = ()
    stages_ms: dict[str, tuple[float, ...]] = field(default_factory=dict)
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What one episode asks for.

    Attributes:
        number: which of the evaluation's episodes it is.
        instruction: what the world is to judge.
        told: what the policy is told.
        seed: of the world's reset.
        max_steps: control steps after which the episode has failed.
    """

    number: int = 0
    instruction: str
    told: str
    seed: int
    max_steps: int

    def failed(self, error: str) -> EpisodeResult:
        """Return the result of an episode that could not be run to its end."""
        return EpisodeResult(
            number=self.number,
            seed=self.seed,
            instruction=self.instruction,
            told=self.told,
            success=False,
            steps=0,
            error=error,
        )


def run_episode(
    policy: Policy,
    world: World,
    task: Task,
    *,
    execution_horizon: int,
    on_inference: OnInference | None = None,
) -> EpisodeResult:
    """Run one episode in a world that waits for every inference.

    Args:
        policy: answers an observation with a chunk.
        world: where it acts.
        task: what is asked.
        execution_horizon: steps of a chunk that are executed before the next inference.
        on_inference: is shown every inference.
    """
    episode = _Episode(policy, world, task, on_inference)
    while not episode.is_over:
        chunk = episode.infer()
        begun = episode.steps
        for action in chunk.actions[: min(execution_horizon, task.max_steps - begun)]:
            episode.act(action, age_steps=episode.steps - begun)
            if episode.is_over:
                break
    return episode.result()


def run_delayed_episode(
    policy: Policy,
    world: World,
    task: Task,
    *,
    delay_s: float,
    schedule: ScheduleConfig,
    on_inference: OnInference | None = None,
) -> EpisodeResult:
    """Run one episode in a world that goes on while the policy thinks, by the node's own chunk schedule.

    Time is the world's, so the result does not depend on the machine: each chunk takes effect `delay_s`
    after its observation and no other inference is under way meanwhile. A step for which no action is due
    stands still.

    Args:
        policy: answers an observation with a chunk.
        world: where it acts.
        task: what is asked.
        delay_s: from an observation to its chunk, seconds of the world's time.
        schedule: when inference starts and how chunks are joined.
        on_inference: is shown every inference.
    """
    episode = _Episode(policy, world, task, on_inference)
    plan = ChunkSchedule(schedule)
    period_ns, delay_ns = policy.spec.step_period_ns, round(delay_s * 1e9)
    thinking: ActionChunk | None = None
    still = np.zeros(len(policy.spec.action_names))
    while not episode.is_over:
        now_ns = episode.steps * period_ns
        if thinking is not None and now_ns >= thinking.stamp_ns + delay_ns:
            plan.replace(thinking, now_ns)
            thinking = None
        if thinking is None and plan.wants(now_ns, now_ns):
            thinking = episode.infer()
            if not delay_ns:
                plan.replace(thinking, now_ns)
                thinking = None
        due = plan.due(now_ns)
        if due is None:
            episode.act(still)
        else:
            episode.act(due.action, age_steps=(now_ns - due.stamp_ns) // period_ns)
            # Standing still keeps the gripper as it is.
            still[-1] = due.action[-1]
    return episode.result()


class _Episode:
    """What both ways of running an episode do, and what they note."""

    def __init__(self, policy: Policy, world: World, task: Task, on_inference: OnInference | None) -> None:
        self._policy, self._world, self._task = policy, world, task
        self._on_inference = on_inference
        self._state = world.reset(instruction=task.instruction, seed=task.seed)
        self._seen_at = 0
        self._retained: list[int] = []
        self._ages_ms: list[float] = []
        self._stages_ms: dict[str, list[float]] = defaultdict(list)
        self._success = world.is_success()
        self.steps = 0

    @property
    def is_over(self) -> bool:
        """Whether it has succeeded or its steps have run out."""
        return self._success or self.steps >= self._task.max_steps

    def infer(self) -> ActionChunk:
        """Have the policy answer the present state."""
        if self._seen_at != self.steps:
            self._state, self._seen_at = self._world.observe(), self.steps
        observation = Observation(
            images=self._state.images,
            proprio=self._state.proprio,
            instruction=self._task.told,
            stamp_ns=self.steps * self._policy.spec.step_period_ns,
        )
        chunk = self._policy.predict_chunk(observation)
        if chunk.keep_masks:
            self._retained.append(chunk.num_retained)
        for stage, milliseconds in chunk.timings_ms.items():
            self._stages_ms[stage].append(round(milliseconds, 3))
        if self._on_inference is not None:
            self._on_inference(observation, chunk)
        return chunk

    def act(self, action: NDArray[np.floating], *, age_steps: int | None = None) -> None:
        """Take one step; None: no action was due."""
        self._world.step(action.astype(np.float64))
        self.steps += 1
        self._success = bool(self._world.is_success())
        if age_steps is not None:
            self._ages_ms.append(age_steps * self._policy.spec.step_period_ns / 1e6)

    def result(self) -> EpisodeResult:
        """Return how it went."""
        return replace(
            self._task.failed(""),
            success=self._success,
            steps=self.steps,
            retained=tuple(self._retained),
            ages_ms=tuple(self._ages_ms),
            stages_ms={stage: tuple(times) for stage, times in self._stages_ms.items()},
        )
