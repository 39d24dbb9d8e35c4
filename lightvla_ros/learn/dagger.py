"""DAgger: the policy drives, the expert says at every state what it would have done.

Demonstrations alone show few of the states that a policy's own mistakes lead to; these are those states.
After Ross, Gordon and Bagnell, 2011 (arXiv 1011.0686).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lightvla_ros.core.errors import ConfigError
from lightvla_ros.core.observation import Observation
from lightvla_ros.core.policy import Policy
from lightvla_ros.sim.world import WorldState

# One second, in which a hand-over to the expert gets the arm out of a corner.
_SEGMENT_STEPS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Dagger:
    """Who drives while demonstrations are collected.

    Attributes:
        load: makes the policy in each worker process, so it must be picklable.
        name: of the policy.
        beta: probability that the expert drives a segment of 20 steps.
        execution_horizon: steps of a chunk executed per inference, as in the node.

    Raises:
        ConfigError: a number is out of range.
    """

    load: Callable[[], Policy] = field(compare=False)
    name: str
    beta: float
    execution_horizon: int = 2

    def __post_init__(self) -> None:
        """Refuse what is no probability or horizon."""
        if not 0.0 <= self.beta < 1.0:
            raise ConfigError(
                "--beta", got=self.beta, expected="at least 0 and below 1", fix="leave --policy out for 1"
            )
        if self.execution_horizon < 1:
            raise ConfigError("execution horizon", got=self.execution_horizon, expected="at least 1")


class MixedDriver:
    """Drives one episode, segment by segment policy or expert.

    Args:
        policy: answers observations.
        dagger: how often the expert drives.
        instruction: what the policy is told.
        rng: decides who drives.
    """

    def __init__(self, policy: Policy, dagger: Dagger, *, instruction: str, rng: np.random.Generator) -> None:
        self._policy = policy
        self._dagger = dagger
        self._instruction = instruction
        self._rng = rng
        self._step = 0
        self._expert_drives = False
        self._planned: list[NDArray[np.float64]] = []

    def __call__(self, state: WorldState, expert_action: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the action [7] to execute at a state, world units."""
        if self._step % _SEGMENT_STEPS == 0:
            self._expert_drives = self._rng.random() < self._dagger.beta
            self._planned = []
        self._step += 1
        if self._expert_drives:
            return expert_action
        if not self._planned:
            self._planned = self._plan(state)
        return self._planned.pop(0)

    def _plan(self, state: WorldState) -> list[NDArray[np.float64]]:
        observation = Observation(
            images=state.images,
            proprio=state.proprio,
            instruction=self._instruction,
            stamp_ns=self._step * self._policy.spec.step_period_ns,
        )
        chunk = self._policy.predict_chunk(observation)
        return [action.astype(np.float64) for action in chunk.actions[: self._dagger.execution_horizon]]
