"""The ceiling of an evaluation: a scripted expert that sees the world's own state, asked as a policy is."""

from __future__ import annotations

import numpy as np

from lightvla_ros.core.observation import ActionChunk, Observation
from lightvla_ros.core.policy import Health, PolicySpec
from lightvla_ros.sim.world import ACTION_NAMES, PROPRIO_DIM, World
from lightvla_ros.sim.worlds import Expert


class ExpertPolicy:
    """`core.policy.Policy` that looks at the world instead of the observation; one step a chunk.

    Args:
        expert: decides.
        world: the world it is asked about.
    """

    health = Health()

    def __init__(self, expert: Expert, world: World) -> None:
        self._expert = expert
        self._world = world
        self.spec = PolicySpec(
            name="expert",
            backend="none",
            camera_names=(),
            grid=(0, 0),
            chunk_size=1,
            action_names=ACTION_NAMES,
            proprio_dim=PROPRIO_DIM,
            step_period_ns=round(world.control_period_s * 1e9),
        )

    def check_instruction(self, instruction: str) -> None:
        """Accept everything: the world knows what it asked for."""

    def predict_chunk(self, observation: Observation) -> ActionChunk:
        """Return what to do now; an observation stamped 0 begins an episode.

        Raises:
            ConfigError: the expert cannot do what the world asks for.
        """
        if observation.stamp_ns == 0:
            self._expert.reset(self._world)
        return ActionChunk(
            actions=self._expert.act(self._world)[None].astype(np.float32),
            stamp_ns=observation.stamp_ns,
            step_period_ns=self.spec.step_period_ns,
            instruction=observation.instruction,
            epoch=observation.epoch,
        )

    def close(self) -> None:
        """Hold nothing."""
