from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lightvla_ros.core.errors import ConfigError, SpecError
from lightvla_ros.learn.demonstrations import (
    META_FILE,
    DemonstrationMeta,
    Episode,
    episode_path,
    load_demonstrations,
    write_episode,
    write_meta,
)

META = DemonstrationMeta(
    world="tabletop",
    cameras=("third_person", "wrist"),
    image_size=4,
    action_names=("x", "gripper"),
    proprio_dim=3,
    step_period_s=0.05,
    instructions=("lift", "drop"),
)


def _episode(steps: int, instruction_index: int = 0) -> Episode:
    return Episode(
        images=np.full((steps, 2, 4, 4, 3), steps, np.uint8),
        proprio=np.full((steps, 3), steps, np.float32),
        actions=np.full((steps, 2), steps, np.float32),
        instruction_index=instruction_index,
    )


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    write_meta(tmp_path / "demos", META)
    write_episode(tmp_path / "demos", 0, _episode(3))
    write_episode(tmp_path / "demos", 7, _episode(5, instruction_index=1))
    return tmp_path / "demos"


def test_episodes_are_read_back_one_after_the_other(directory: Path) -> None:
    demonstrations = load_demonstrations(directory)
    assert demonstrations.meta == META
    assert demonstrations.episode_starts.tolist() == [0, 3, 8]
    assert demonstrations.instruction_index.tolist() == [0, 0, 0, 1, 1, 1, 1, 1]
    assert demonstrations.images.shape == (8, 2, 4, 4, 3)
    assert demonstrations.images[:, 0, 0, 0, 0].tolist() == [3, 3, 3, 5, 5, 5, 5, 5]
    assert demonstrations.actions[:, 1].tolist() == demonstrations.proprio[:, 0].tolist()


def _missing_camera(episode: Episode) -> Episode:
    return replace(episode, images=episode.images[:, :1])


def _wrong_action_size(episode: Episode) -> Episode:
    return replace(episode, actions=np.zeros((4, 7), np.float32))


def _nan_state(episode: Episode) -> Episode:
    return replace(episode, proprio=np.full((4, 3), np.nan, np.float32))


def _float_images(episode: Episode) -> Episode:
    return replace(episode, images=episode.images.astype(np.float32))


def _unknown_instruction(episode: Episode) -> Episode:
    return replace(episode, instruction_index=2)


@pytest.mark.parametrize(
    ("spoil", "field"),
    [
        (_missing_camera, "images"),
        (_wrong_action_size, "actions"),
        (_nan_state, "proprio"),
        (_float_images, "images"),
        (_unknown_instruction, "instruction_index"),
    ],
)
def test_bad_data_is_refused_by_episode_and_field(directory: Path, spoil, field: str) -> None:  # noqa: ANN001
    write_episode(directory, 2, spoil(_episode(4)))
    with pytest.raises(SpecError, match=f"episode_000002: {field}"):
        load_demonstrations(directory)


def test_a_missing_field_is_named(directory: Path) -> None:
    np.savez(episode_path(directory, 3), actions=np.zeros((4, 2), np.float32))
    with pytest.raises(SpecError, match="episode_000003: images"):
        load_demonstrations(directory)


def test_a_damaged_file_is_named(directory: Path) -> None:
    episode_path(directory, 3).write_bytes(episode_path(directory, 0).read_bytes()[:100])
    with pytest.raises(SpecError, match="episode_000003"):
        load_demonstrations(directory)


def test_a_directory_without_demonstrations_says_how_to_collect(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="lightvla collect"):
        load_demonstrations(tmp_path)


def test_a_damaged_meta_file_is_refused(directory: Path) -> None:
    (directory / META_FILE).write_text('{"world": 1}')
    with pytest.raises(ConfigError, match=META_FILE):
        load_demonstrations(directory)


def test_collecting_does_not_mix_with_what_is_there(directory: Path) -> None:
    with pytest.raises(ConfigError, match="another --out"):
        write_meta(directory, META)
