from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from lightvla_ros.cli import main
from lightvla_ros.core.observation import ActionChunk, Observation
from lightvla_ros.core.policy import PolicySpec
from lightvla_ros.learn.collection import Collection, Disturbance, collect, model_action
from lightvla_ros.learn.dagger import Dagger
from lightvla_ros.learn.demonstrations import load_demonstrations
from lightvla_ros.sim.instructions import GOALS, WORDINGS
from lightvla_ros.sim.world import ACTION_NAMES
from lightvla_ros.sim.worlds import WorldConfig


class StandsStill:
    """A policy that never moves; a class of a module, so that worker processes can make it."""

    spec = PolicySpec(
        name="still",
        backend="none",
        camera_names=("third_person", "wrist"),
        grid=(1, 1),
        chunk_size=8,
        action_names=ACTION_NAMES,
        proprio_dim=8,
        step_period_ns=50_000_000,
    )

    def check_instruction(self, instruction: str) -> None:
        pass

    def predict_chunk(self, observation: Observation) -> ActionChunk:
        return ActionChunk(
            actions=np.zeros((8, 7), np.float32),
            stamp_ns=observation.stamp_ns,
            instruction=observation.instruction,
            step_period_ns=self.spec.step_period_ns,
            keep_masks={name: np.ones((1, 1), np.bool_) for name in self.spec.camera_names},
            timings_ms={},
        )

    def close(self) -> None:
        pass


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


def test_collected_wordings_vary_and_their_goals_do_not(tmp_path: Path) -> None:
    request = Collection(
        directory=tmp_path / "demos",
        episodes=3,
        seed=40,
        image_size=56,
        workers=1,
        world=WorldConfig(randomize=1.0),
        vary_wording=True,
    )
    kept = sorted(attempt.number for attempt in collect(request) if attempt.kept)
    data = load_demonstrations(request.directory)
    said = [data.meta.instructions[i] for i in data.instruction_index[data.episode_starts[:-1]]]
    assert [WORDINGS[text].instruction for text in said] == [tuple(GOALS)[number] for number in kept]
    assert set(said) - set(GOALS)
    assert json.loads((request.directory / "collection.json").read_text())["randomize"] == 1.0


def test_a_policy_drives_and_the_expert_labels_what_comes_of_it(tmp_path: Path) -> None:
    dagger = Dagger(load=StandsStill, name="still", beta=0.0)
    request = Collection(
        directory=tmp_path / "round_1", episodes=1, seed=60, image_size=56, workers=1, dagger=dagger
    )
    (attempt,) = collect(request)
    data = load_demonstrations(request.directory)
    assert (attempt.success, attempt.kept) == (False, True)
    assert len(data.actions) == attempt.steps == 160
    # The arm does not move, and the expert says all along that it should.
    assert np.ptp(data.proprio[5:, :3], axis=0).max() < 0.002
    assert np.abs(data.actions[:, :3]).max(axis=1).min() > 0.1


def test_the_wrong_policy_is_told_before_any_process_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(["collect", "--policy", "nobody", "--out", str(tmp_path / "round_1")]) == 1
    assert "nobody" in capsys.readouterr().err
    assert not (tmp_path / "round_1").exists()
