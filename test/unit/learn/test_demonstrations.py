from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lightvla_ros.core.errors import ConfigError, LightVlaError, SpecError
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


def _infinite_action(episode: Episode) -> Episode:
    return replace(episode, actions=np.full((4, 2), np.inf, np.float32))


def _short_state(episode: Episode) -> Episode:
    return replace(episode, proprio=episode.proprio[:, :2])


def _fewer_states(episode: Episode) -> Episode:
    return replace(episode, proprio=episode.proprio[:3])


def _small_images(episode: Episode) -> Episode:
    return replace(episode, images=episode.images[:, :, :3])


def _no_steps(episode: Episode) -> Episode:
    return replace(episode, **{name: getattr(episode, name)[:0] for name in ("images", "proprio", "actions")})


@pytest.mark.parametrize(
    ("spoil", "field"),
    [
        (_missing_camera, "images"),
        (_wrong_action_size, "actions"),
        (_nan_state, "proprio"),
        (_float_images, "images"),
        (_unknown_instruction, "instruction_index"),
        (_infinite_action, "actions"),
        (_short_state, "proprio"),
        (_fewer_states, "proprio"),
        (_small_images, "images"),
        (_no_steps, "actions"),
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
    with pytest.raises(ConfigError, match="got no demonstrations; .* LeRobot.*lightvla collect"):
        load_demonstrations(tmp_path)


def test_a_directory_that_is_not_there_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no such directory; .* LeRobot.*lightvla collect"):
        load_demonstrations(tmp_path / "pusht")


def test_a_damaged_meta_file_is_refused(directory: Path) -> None:
    (directory / META_FILE).write_text('{"world": 1}')
    with pytest.raises(ConfigError, match=META_FILE):
        load_demonstrations(directory)


def test_collecting_does_not_mix_with_what_is_there(directory: Path) -> None:
    with pytest.raises(ConfigError, match="another --out"):
        write_meta(directory, META)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_flipped_byte_is_noticed_or_harmless(directory: Path, data: st.DataObject) -> None:
    path = episode_path(directory, 0)
    content = path.read_bytes()
    before = load_demonstrations(directory)
    position = data.draw(st.integers(0, len(content) - 1))
    spoilt = bytearray(content)
    spoilt[position] ^= data.draw(st.integers(1, 255))
    path.write_bytes(spoilt)
    try:
        after = load_demonstrations(directory)
    except LightVlaError as error:
        assert "episode_000000" in str(error)
    else:
        for name in ("images", "proprio", "actions", "instruction_index", "episode_starts"):
            np.testing.assert_array_equal(getattr(after, name), getattr(before, name))
    finally:
        path.write_bytes(content)


def test_several_directories_are_read_one_after_the_other_with_all_their_instructions(
    directory: Path, tmp_path: Path
) -> None:
    other = tmp_path / "round_1"
    write_meta(other, replace(META, instructions=("drop", "push")))
    write_episode(other, 0, _episode(2, instruction_index=0))
    write_episode(other, 1, _episode(1, instruction_index=1))
    data = load_demonstrations(directory, other)
    assert data.meta.instructions == ("lift", "drop", "push")
    assert data.episode_starts.tolist() == [0, 3, 8, 10, 11]
    assert [data.meta.instructions[i] for i in data.instruction_index[[0, 3, 8, 10]]] == [
        "lift",
        "drop",
        "drop",
        "push",
    ]
    assert data.images[8, 0, 0, 0, 0] == 2


@pytest.mark.parametrize(
    "change", [{"image_size": 8}, {"cameras": ("wrist", "third_person")}, {"step_period_s": 0.1}]
)
def test_directories_of_different_kinds_are_not_mixed(
    directory: Path, tmp_path: Path, change: dict[str, object]
) -> None:
    write_meta(tmp_path / "other", replace(META, **change))
    write_episode(tmp_path / "other", 0, _episode(2))
    with pytest.raises(ConfigError, match=f"other: {next(iter(change))}"):
        load_demonstrations(directory, tmp_path / "other")


def test_images_that_do_not_fit_into_memory_are_refused(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lightvla_ros.learn.memory.available_bytes", lambda: 700.0)
    with pytest.raises(ConfigError, match="images of 8 demonstrated steps.*fewer episodes"):
        load_demonstrations(directory)
