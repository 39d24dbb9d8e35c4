from __future__ import annotations

from pathlib import Path

import numpy as np

from lightvla_ros.learn.collection import Collection, Disturbance, collect, model_action
from lightvla_ros.learn.demonstrations import load_demonstrations


def test_the_gripper_label_is_one_when_open_and_zero_when_closed() -> None:
    assert model_action(np.array([0.5, 0, 0, 0, 0, 0, -1.0]))[[0, -1]].tolist() == [0.5, 1.0]
    assert model_action(np.array([0.5, 0, 0, 0, 0, 0, 1.0]))[-1] == 0.0


def test_disturbances_push_now_and_then_and_stay_in_range() -> None:
    disturb = Disturbance(np.random.default_rng(0))
    action = np.array([0.4, 0, 0, 0, 0, 0, -1.0])
    disturbed = np.stack([disturb(action) for _ in range(2000)])
    assert np.abs(disturbed).max() <= 1.0
    assert 0.2 < (disturbed[:, :3] == action[:3]).all(axis=1).mean() < 0.8
    assert 0.0 < (disturbed[:, 6] == 1.0).mean() < 0.05


def test_collected_episodes_are_read_back_with_their_instructions(tmp_path: Path) -> None:
    request = Collection(directory=tmp_path / "demos", episodes=2, seed=20, image_size=56, workers=1)
    attempts = list(collect(request))
    demonstrations = load_demonstrations(request.directory)
    kept = sorted(attempt.number for attempt in attempts if attempt.success)
    firsts = demonstrations.episode_starts[:-1]
    assert kept
    assert demonstrations.images.shape[1:] == (2, 56, 56, 3)
    assert demonstrations.instruction_index[firsts].tolist() == kept
    assert set(np.unique(demonstrations.actions[:, -1])) == {0.0, 1.0}
