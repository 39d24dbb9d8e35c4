"""One closed-loop episode: a policy acts in a world until the world is satisfied or the steps run out."""

from __future__ import annotations

from dataclasses import dataclass

from lightvla_ros.core.observation import Observation
from lightvla_ros.core.policy import Policy
from lightvla_ros.sim.world import World, WorldState


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeResult:
    """How one episode went.

    Attributes:
        seed: of the world's reset.
        instruction: what the world asks for and judges.
        told: what the policy was told, the same unless it was misled on purpose.
        success: whether the world says so within the step limit.
        steps: control steps taken.
        retained: visual tokens retained at each inference.
    """

    seed: int
    instruction: str
    told: str
    success: bool
    steps: int
    retained: tuple[int, ...]


def run_episode(
    policy: Policy,
    world: World,
    *,
    instruction: str,
    seed: int,
    max_steps: int,
    execution_horizon: int,
    told: str | None = None,
) -> EpisodeResult:
    """Run one episode to success or to the step limit.

    Args:
        policy: answers an observation with a chunk.
        world: where it acts.
        instruction: what the world is to judge.
        seed: of the world's reset.
        max_steps: control steps after which the episode has failed.
        execution_horizon: steps of a chunk that are executed before the next inference.
        told: what the policy is told; None tells it the instruction.
    """
    told = instruction if told is None else told
    state = world.reset(instruction=instruction, seed=seed)
    retained: list[int] = []
    steps = 0
    while steps < max_steps and not world.is_success():
        chunk = policy.predict_chunk(_observation(state, told, steps, policy.spec.step_period_ns))
        retained.append(chunk.num_retained)
        for action in chunk.actions[: min(execution_horizon, max_steps - steps)]:
            state = world.step(action)
            steps += 1
            if world.is_success():
                break
    return EpisodeResult(
        seed=seed,
        instruction=instruction,
        told=told,
        success=world.is_success(),
        steps=steps,
        retained=tuple(retained),
    )


def _observation(state: WorldState, instruction: str, step: int, step_period_ns: int) -> Observation:
    return Observation(
        images=state.images,
        proprio=state.proprio,
        instruction=instruction,
        stamp_ns=step * step_period_ns,
    )
