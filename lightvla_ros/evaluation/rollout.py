"""Closed-loop evaluation: a policy acts in a world, episode by episode, in this process."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from lightvla_ros.core.observation import Observation
from lightvla_ros.core.policy import Policy
from lightvla_ros.sim.world import World, WorldState

_Z_95 = 1.959964


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeResult:
    """How one episode went.

    Attributes:
        seed: of the world's reset.
        instruction: what was asked.
        success: whether the world says so within the step limit.
        steps: control steps taken.
        retained: visual tokens retained at each inference.
    """

    seed: int
    instruction: str
    success: bool
    steps: int
    retained: tuple[int, ...]


def evaluate_policy(
    policy: Policy, world: World, *, episodes: int, seed: int, max_steps: int, execution_horizon: int
) -> Iterator[EpisodeResult]:
    """Run episodes one after the other, cycling through the world's instructions.

    Args:
        policy: answers an observation with a chunk.
        world: where it acts.
        episodes: how many; episode i uses seed + i.
        seed: of the first episode.
        max_steps: control steps after which an episode has failed.
        execution_horizon: steps of a chunk that are executed before the next inference.
    """
    instructions = world.instructions()
    for i in range(episodes):
        instruction = instructions[i % len(instructions)]
        yield run_episode(
            policy,
            world,
            instruction=instruction,
            seed=seed + i,
            max_steps=max_steps,
            execution_horizon=execution_horizon,
        )


def run_episode(
    policy: Policy, world: World, *, instruction: str, seed: int, max_steps: int, execution_horizon: int
) -> EpisodeResult:
    """Run one episode to success or to the step limit."""
    state = world.reset(instruction=instruction, seed=seed)
    retained: list[int] = []
    steps = 0
    while steps < max_steps and not world.is_success():
        chunk = policy.predict_chunk(_observation(state, instruction, steps, policy.spec.step_period_ns))
        retained.append(chunk.num_retained)
        for action in chunk.actions[: min(execution_horizon, max_steps - steps)]:
            state = world.step(action)
            steps += 1
            if world.is_success():
                break
    return EpisodeResult(
        seed=seed, instruction=instruction, success=world.is_success(), steps=steps, retained=tuple(retained)
    )


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """Return the 95 % Wilson score interval of a success rate; (0, 1) without trials."""
    if trials == 0:
        return 0.0, 1.0
    p, z2 = successes / trials, _Z_95**2
    center = (p + z2 / (2 * trials)) / (1 + z2 / trials)
    half = _Z_95 * math.sqrt(p * (1 - p) / trials + z2 / (4 * trials**2)) / (1 + z2 / trials)
    return max(0.0, center - half), min(1.0, center + half)


def _observation(state: WorldState, instruction: str, step: int, step_period_ns: int) -> Observation:
    return Observation(
        images=state.images,
        proprio=state.proprio,
        instruction=instruction,
        stamp_ns=step * step_period_ns,
    )
