"""LeRobot data sets of both layouts: what was written is read back, what is bad is refused by name."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from lerobot_files import FPS, FRONT, HEIGHT, VERSIONS, WIDTH, WRIST, ToyDataSet, toy_episode, write_video

from lightvla_ros.core.errors import ConfigError, LightVlaError, SpecError
from lightvla_ros.learn.demonstrations import load_demonstrations
from lightvla_ros.learn.lerobot_mapping import LeRobotMapping

MAPPING = f"""
cameras: {{third_person: {FRONT}, wrist: {WRIST}}}
state: observation.state
action: action
gripper: {{open: -1, closed: 1}}
image_size: 16
"""


def _data_set(version: str) -> ToyDataSet:
    return ToyDataSet(
        version=version,
        episodes=[toy_episode(9), toy_episode(7, seed=1, task=1), toy_episode(6, seed=2)],
    )


def _write(data_set: ToyDataSet, root: Path, mapping: str = MAPPING) -> Path:
    data_set.write(root)
    (root / "lightvla.yaml").write_text(mapping)
    return root


@pytest.mark.parametrize("version", VERSIONS)
def test_what_was_written_is_read_back(version: str, tmp_path: Path) -> None:
    data_set = _data_set(version)
    data = load_demonstrations(_write(data_set, tmp_path / "cups"))
    assert data.meta.world == "cups"
    assert data.meta.cameras == ("third_person", "wrist")
    assert data.meta.action_names == ("x", "y", "gripper")
    assert data.meta.step_period_s == pytest.approx(1 / FPS)
    assert data.episode_starts.tolist() == [0, 9, 16, 22]
    firsts = [data.meta.instructions[i] for i in data.instruction_index[data.episode_starts[:-1]]]
    assert firsts == ["take the cup", "pour", "take the cup"]
    state = np.concatenate([episode.state for episode in data_set.episodes])
    np.testing.assert_array_equal(data.proprio, state.astype(np.float32))
    action = np.concatenate([episode.action for episode in data_set.episodes])
    np.testing.assert_array_equal(data.actions[:, :2], action[:, :2].astype(np.float32))
    np.testing.assert_array_equal(data.actions[:, 2], action[:, 2] < 0)  # 1 open, 0 closed


@pytest.mark.parametrize("codec", ["libx264", "libsvtav1"])
@pytest.mark.parametrize("version", VERSIONS)
def test_every_step_has_its_own_image_of_its_own_camera(version: str, codec: str, tmp_path: Path) -> None:
    data_set = _data_set(version)
    data_set.codec = codec
    data = load_demonstrations(_write(data_set, tmp_path / "cups"))
    for camera, key in enumerate((FRONT, WRIST)):
        written = np.concatenate([episode.images[key] for episode in data_set.episodes])
        colours = data.images[:, camera].mean(axis=(1, 2))
        np.testing.assert_allclose(colours, written[:, 0, 0], atol=4)


@pytest.mark.parametrize("version", VERSIONS)
def test_images_inside_the_table_are_read_too(version: str, tmp_path: Path) -> None:
    data_set = _data_set(version)
    data_set.front_dtype = "image"
    data = load_demonstrations(_write(data_set, tmp_path / "cups"))
    written = np.concatenate([episode.images[FRONT] for episode in data_set.episodes])
    np.testing.assert_array_equal(data.images[:, 0, 5, 5], written[:, 5, 5])


def test_columns_and_names_can_be_chosen_on_the_command_line(tmp_path: Path) -> None:
    root = _write(_data_set("v3.0"), tmp_path / "cups", mapping="overridden")
    inline = (
        f"{{cameras: {{wrist: {WRIST}}}, state: [action, observation.state], state_columns: [5, 0], "
        "action: action, action_columns: [1, 2], action_names: [dy, grip], "
        "gripper: {open: -1, closed: 1}, image_size: 8}"
    )
    data = load_demonstrations(root, mapping=inline)
    assert data.meta.action_names == ("dy", "grip")
    assert data.images.shape == (22, 1, 8, 8, 3)
    first = _data_set("v3.0").episodes[0]
    np.testing.assert_allclose(data.proprio[0], [first.state[0][2], first.action[0][0]], rtol=1e-6)
    assert data.actions[0, 0] == pytest.approx(first.action[0][1])


def _nan_state(data: ToyDataSet) -> None:
    data.episodes[1].state[3][2] = float("nan")


def _infinite_action(data: ToyDataSet) -> None:
    data.episodes[1].action[3][0] = float("inf")


def _short_actions(data: ToyDataSet) -> None:
    data.episodes[1].action = [row[1:] for row in data.episodes[1].action]


def _ragged_state(data: ToyDataSet) -> None:
    data.episodes[1].state[2].append(0.0)


def _missing_state(data: ToyDataSet) -> None:
    data.episodes[1].state[2] = None  # type: ignore[call-overload]


def _empty(data: ToyDataSet) -> None:
    data.episodes[1].claimed_length = 0


def _wrong_length(data: ToyDataSet) -> None:
    data.episodes[1].claimed_length = 8


def _unknown_task(data: ToyDataSet) -> None:
    data.episodes[1].task_index = [5] * 7


def _changing_task(data: ToyDataSet) -> None:
    data.episodes[1].task_index = [0, 0, 0, 1, 1, 1, 1]


def _other_gripper(data: ToyDataSet) -> None:
    data.episodes[1].action[4][2] = 20.0


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (_nan_state, r"observation.state; got not finite at step 3"),
        (_infinite_action, r"action; got not finite at step 3"),
        (_short_actions, r"action; got action of 2 numbers; expected 3"),
        (_ragged_state, r"observation.state"),
        (_missing_state, r"observation.state"),
        (_empty, r"length"),
        (_wrong_length, r"length; got 7 rows; expected the 8"),
        (_unknown_task, r"task_index; got \[5\]"),
        (_changing_task, r"task_index; got \[0, 1\]"),
        (_other_gripper, r"gripper; got 20 at step 4"),
    ],
)
def test_bad_numbers_are_refused_by_episode_and_field(
    version: str, spoil: Callable[[ToyDataSet], None], complaint: str, tmp_path: Path
) -> None:
    data_set = _data_set(version)
    spoil(data_set)
    with pytest.raises(SpecError, match=f"episode_000001: {complaint}"):
        load_demonstrations(_write(data_set, tmp_path / "cups"))


def _video(root: Path, version: str) -> Path:
    name = "chunk-000/{}/episode_000002.mp4" if version == "v2.1" else "{}/chunk-000/file-000.mp4"
    return root / "videos" / name.format(WRIST)


def _delete(path: Path) -> None:
    path.unlink()


def _cut(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def _overwrite(path: Path) -> None:
    path.write_bytes(b"not a video" * 100)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("spoil", [_delete, _cut, _overwrite])
def test_a_bad_video_is_refused_by_episode_and_camera(
    version: str, spoil: Callable[[Path], None], tmp_path: Path
) -> None:
    root = _write(_data_set(version), tmp_path / "cups")
    spoil(_video(root, version))
    with pytest.raises(SpecError, match=rf"episode_00000\d: {WRIST}"):
        load_demonstrations(root)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_video_that_ends_early_is_refused_by_episode_and_camera(version: str, tmp_path: Path) -> None:
    data_set = _data_set(version)
    root = _write(data_set, tmp_path / "cups")
    images = [episode.images[WRIST] for episode in data_set.episodes]
    write_video(_video(root, version), (images[2] if version == "v2.1" else np.concatenate(images))[:-2])
    with pytest.raises(SpecError, match=f"episode_000002: {WRIST}; got 4 frames .*expected 6"):
        load_demonstrations(root)


@pytest.mark.parametrize("version", VERSIONS)
def test_images_of_another_size_than_stated_are_refused(version: str, tmp_path: Path) -> None:
    root = _write(_data_set(version), tmp_path / "cups")
    _edit_info(root, lambda info: info["features"][FRONT].update(shape=[3, WIDTH, HEIGHT]))
    with pytest.raises(SpecError, match=f"episode_000000: {FRONT}; got an image of .48, 64, 3. at step 0"):
        load_demonstrations(root)


@pytest.mark.parametrize("version", VERSIONS)
def test_missing_statistics_are_refused(version: str, tmp_path: Path) -> None:
    data_set = _data_set(version)
    data_set.with_statistics = False
    with pytest.raises(SpecError, match=r"(episode_000001|every episode): statistics of observation.state"):
        load_demonstrations(_write(data_set, tmp_path / "cups"))


@pytest.mark.parametrize("version", VERSIONS)
def test_a_damaged_table_is_refused_by_episode(version: str, tmp_path: Path) -> None:
    root = _write(_data_set(version), tmp_path / "cups")
    for path in sorted((root / "data").rglob("*.parquet"))[-1:]:
        _cut(path)
    with pytest.raises(SpecError, match=r"episode_00000\d: table"):
        load_demonstrations(root)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_camera_the_data_set_lacks_is_refused_with_those_it_has(version: str, tmp_path: Path) -> None:
    root = _write(_data_set(version), tmp_path / "cups", MAPPING.replace(FRONT, "observation.images.top"))
    with pytest.raises(ConfigError, match=f"observation.images.top.*{WRIST}"):
        load_demonstrations(root)


@pytest.mark.parametrize("stated", ["v2.0", "v4.0", "1.6", None])
def test_another_version_of_the_layout_is_refused(stated: str | None, tmp_path: Path) -> None:
    root = _write(_data_set("v2.1"), tmp_path / "cups")
    _edit_info(root, lambda info: info.update(codebase_version=stated))
    with pytest.raises(ConfigError, match="codebase_version.*v2.1 or v3.0"):
        load_demonstrations(root)


@pytest.mark.parametrize("version", VERSIONS)
def test_damaged_meta_data_are_refused_whatever_file_it_is(version: str, tmp_path: Path) -> None:
    whole = _write(_data_set(version), tmp_path / "cups")
    for path in sorted(p for p in (whole / "meta").rglob("*") if p.is_file()):
        content = path.read_bytes()
        for damaged in (b"", b"[1]", content[: len(content) // 2]):
            path.write_bytes(damaged)
            with pytest.raises(LightVlaError):
                load_demonstrations(whole)
        path.write_bytes(content)
    load_demonstrations(whole)


@pytest.mark.parametrize("junk", [None, "x", [], {}, 0, -1.5])
@pytest.mark.parametrize("version", VERSIONS)
def test_an_entry_of_info_that_makes_no_sense_is_refused(version: str, junk: object, tmp_path: Path) -> None:
    root = _write(_data_set(version), tmp_path / "cups")
    info = json.loads((root / "meta/info.json").read_text())
    needed = [(key,) for key in ("codebase_version", "fps", "data_path", "video_path", "features")]
    needed += [("features", FRONT, "dtype"), ("features", FRONT, "shape"), ("features", "action", "shape")]
    for *path, last in needed:
        _edit_info(root, lambda info: _at(info, path).update({last: junk}))  # noqa: B023
        with pytest.raises(LightVlaError):
            load_demonstrations(root)
        (root / "meta/info.json").write_text(json.dumps(info))


@pytest.mark.parametrize(
    "spoil",
    [
        ("image_size: 16", ""),
        ("image_size: 16", "image_size: many"),
        ("open: -1", "opened: -1"),
        ("open: -1", "open: 1"),
        ("action: action", "actions: action"),
        ("action: action", "action: action\naction_columns: [0, 3]"),
        ("action: action", "action: action\naction_names: [x]"),
        ("cameras: {", "cameras: ["),
        (f"{{third_person: {FRONT}, wrist: {WRIST}}}", f"[{FRONT}, {WRIST}]"),
        ("image_size: 16", "image_size: '16'"),
        ("image_size: 16", "image_size: 16.5"),
        (MAPPING, "as in the other data set"),
    ],
)
def test_a_mapping_that_cannot_be_meant_is_refused(spoil: tuple[str, str], tmp_path: Path) -> None:
    root = _write(_data_set("v2.1"), tmp_path / "cups", MAPPING.replace(*spoil))
    with pytest.raises(ConfigError, match="LeRobot mapping"):
        load_demonstrations(root)


def test_without_a_mapping_the_message_shows_one(tmp_path: Path) -> None:
    root = _write(_data_set("v2.1"), tmp_path / "cups")
    (root / "lightvla.yaml").unlink()
    with pytest.raises(ConfigError, match="lightvla.yaml.*third_person: observation.images.front") as caught:
        load_demonstrations(root)
    LeRobotMapping.read(caught.value.fix.removeprefix("write one like "))


def test_a_missing_library_is_named_with_what_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = _write(_data_set("v2.1"), tmp_path / "cups")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(ConfigError, match=r"pip install 'lightvla_ros\[lerobot\]'"):
        load_demonstrations(root)


def test_both_kinds_are_trained_on_together_only_when_they_agree(tmp_path: Path) -> None:
    roots = [_write(_data_set(version), tmp_path / version / "cups") for version in VERSIONS]
    assert load_demonstrations(*roots).episode_starts.tolist() == [0, 9, 16, 22, 31, 38, 44]
    _edit_info(roots[1], lambda info: info.update(fps=20))
    with pytest.raises(ConfigError, match="v3.0/cups: step_period_s"):
        load_demonstrations(*roots)


def _edit_info(root: Path, edit: Callable[[dict], object]) -> None:
    path = root / "meta/info.json"
    info = json.loads(path.read_text())
    edit(info)
    path.write_text(json.dumps(info))


def _at(values: dict, path: list[str]) -> dict:
    for key in path:
        values = values[key]
    return values
