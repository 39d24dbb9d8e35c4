"""The floor of every evaluation: a policy that looks at nothing."""

from __future__ import annotations

import zlib

import numpy as np

from lightvla_ros.core.observation import ActionChunk, Observation
from lightvla_ros.core.policy import Health, PolicySpec


class RandomPolicy:
    """`core.policy.Policy` with uniformly random chunks; each chunk holds or opens the gripper throughout.

    Args:
        spec: of the policy it stands in for.
    """

    health = Health()

    def __init__(self, spec: PolicySpec) -> None:
        self.spec = spec

    def check_instruction(self, instruction: str) -> None:
        """Accept everything."""

    def predict_chunk(self, observation: Observation) -> ActionChunk:
        """Return a random chunk in [-1, 1], the same for the same state."""
        rng = np.random.default_rng(zlib.crc32(observation.proprio.tobytes()))
        actions = rng.uniform(-1, 1, (self.spec.chunk_size, len(self.spec.action_names)))
        actions[:, -1] = rng.choice((-1.0, 1.0))
        grid = np.ones(self.spec.grid, dtype=np.bool_)
        return ActionChunk(
            actions=actions.astype(np.float32),
            stamp_ns=observation.stamp_ns,
            step_period_ns=self.spec.step_period_ns,
            keep_masks=dict.fromkeys(self.spec.camera_names, grid),
            instruction=observation.instruction,
            epoch=observation.epoch,
        )

    def close(self) -> None:
        """Hold nothing."""
