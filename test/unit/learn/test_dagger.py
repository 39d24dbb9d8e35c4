from __future__ import annotations

import numpy as np
import pytest

from lightvla_ros.core.errors import ConfigError
from lightvla_ros.core.observation import ActionChunk, Observation
from lightvla_ros.core.policy import PolicySpec
from lightvla_ros.learn.dagger import Dagger, MixedDriver
from lightvla_ros.sim.world import WorldState

SPEC = PolicySpec(
    name="toy",
    backend="toy",
    camera_names=("third_person", "wrist"),
    grid=(1, 1),
    chunk_size=8,
    action_names=("x", "y", "z", "roll", "pitch", "yaw", "gripper"),
    proprio_dim=8,
    step_period_ns=50_000_000,
)
STATE = WorldState(
    images={name: np.zeros((8, 8, 3), np.uint8) for name in SPEC.camera_names},
    eef_position=np.zeros(3),
    eef_quaternion=np.array([0.0, 0.0, 0.0, 1.0]),
    joint_positions=np.zeros(7),
    gripper_positions=np.zeros(2),
)
EXPERT = np.full(7, 0.5)


class CountingPolicy:
    """Answers the i-th observation with a chunk whose step k is i + k / 10."""

    spec = SPEC

    def __init__(self) -> None:
        self.observations: list[Observation] = []

    def check_instruction(self, instruction: str) -> None:
        pass

    def predict_chunk(self, observation: Observation) -> ActionChunk:
        steps = len(self.observations) + np.arange(8) / 10
        self.observations.append(observation)
        return ActionChunk(
            actions=np.repeat(steps[:, None], 7, axis=1).astype(np.float32),
            stamp_ns=observation.stamp_ns,
            instruction=observation.instruction,
            step_period_ns=SPEC.step_period_ns,
            keep_masks={name: np.ones((1, 1), np.bool_) for name in SPEC.camera_names},
            timings_ms={},
        )

    def close(self) -> None:
        pass


def _driver(policy: CountingPolicy, beta: float) -> MixedDriver:
    dagger = Dagger(load=lambda: policy, name="toy", beta=beta)
    return MixedDriver(policy, dagger, instruction="lift it", rng=np.random.default_rng(0))


def test_without_the_expert_the_policy_executes_two_steps_of_each_chunk() -> None:
    policy = CountingPolicy()
    drive = _driver(policy, beta=0.0)
    executed = [drive(STATE, EXPERT)[0] for _ in range(5)]
    np.testing.assert_allclose(executed, [0.0, 0.1, 1.0, 1.1, 2.0], atol=1e-6)
    assert {observation.instruction for observation in policy.observations} == {"lift it"}


def test_the_expert_drives_its_share_of_the_segments_and_a_fresh_chunk_follows() -> None:
    policy = CountingPolicy()
    drive = _driver(policy, beta=0.4)
    by_expert = np.array([(drive(STATE, EXPERT) == EXPERT).all() for _ in range(20 * 200)]).reshape(200, 20)
    assert (by_expert.all(axis=1) | ~by_expert.any(axis=1)).all()
    assert 0.3 < by_expert[:, 0].mean() < 0.5
    assert len(policy.observations) == 10 * (~by_expert[:, 0]).sum()


@pytest.mark.parametrize("beta", [-0.1, 1.0, float("nan")])
def test_a_beta_that_leaves_the_policy_nothing_to_drive_is_refused(beta: float) -> None:
    with pytest.raises(ConfigError, match="--beta"):
        Dagger(load=CountingPolicy, name="toy", beta=beta)
