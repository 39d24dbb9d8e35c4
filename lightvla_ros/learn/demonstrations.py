"""Demonstrations on disk: one file per episode, written by `lightvla collect`, read by `lightvla train`."""

from __future__ import annotations

import json
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightvla_ros.core.errors import ConfigError, SpecError

SCHEMA = 1
META_FILE = "meta.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class DemonstrationMeta:
    """What all episodes of a directory share.

    Attributes:
        world: the world's name.
        cameras: camera names in the order of the images' second axis.
        image_size: pixels, height and width.
        action_names: one name per action dimension; the gripper is the last, 1 open / 0 closed.
        proprio_dim: length of the state vector.
        step_period_s: time between two steps.
        instructions: what `instruction_index` points into.
        schema: version of the layout.
    """

    world: str
    cameras: tuple[str, ...]
    image_size: int
    action_names: tuple[str, ...]
    proprio_dim: int
    step_period_s: float
    instructions: tuple[str, ...]
    schema: int = SCHEMA


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Episode:
    """One demonstrated episode of T steps.

    Attributes:
        images: uint8 [T, cameras, S, S, 3] RGB, before step i.
        proprio: float32 [T, P], before step i.
        actions: float32 [T, A], what the expert would do at step i; gripper 1 open / 0 closed.
        instruction_index: which of the meta's instructions.
    """

    images: NDArray[np.uint8]
    proprio: NDArray[np.float32]
    actions: NDArray[np.float32]
    instruction_index: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Demonstrations:
    """All episodes of a directory, one after the other, N steps in E episodes.

    Attributes:
        meta: what the episodes share.
        images: uint8 [N, cameras, S, S, 3] RGB.
        proprio: float32 [N, P].
        actions: float32 [N, A], gripper 1 open / 0 closed.
        instruction_index: int64 [N].
        episode_starts: int64 [E + 1]; episode e is the steps episode_starts[e] : episode_starts[e + 1].
    """

    meta: DemonstrationMeta
    images: NDArray[np.uint8]
    proprio: NDArray[np.float32]
    actions: NDArray[np.float32]
    instruction_index: NDArray[np.int64]
    episode_starts: NDArray[np.int64]


def episode_path(directory: Path, number: int) -> Path:
    """Return the file of an episode."""
    return directory / f"episode_{number:06d}.npz"


def write_meta(directory: Path, meta: DemonstrationMeta) -> None:
    """Begin a directory of demonstrations.

    Raises:
        ConfigError: it already holds some.
    """
    if (directory / META_FILE).exists() or any(directory.glob("episode_*.npz")):
        raise ConfigError(
            str(directory),
            got="demonstrations",
            expected="an empty or new directory",
            fix="choose another --out",
        )
    directory.mkdir(parents=True, exist_ok=True)
    (directory / META_FILE).write_text(json.dumps(asdict(meta), indent=2) + "\n")


def write_episode(directory: Path, number: int, episode: Episode) -> None:
    """Write one episode; a reader never sees half of it."""
    path = episode_path(directory, number)
    unfinished = path.with_suffix(".part")
    with unfinished.open("wb") as file:
        np.savez(
            file,
            images=episode.images,
            proprio=episode.proprio,
            actions=episode.actions,
            instruction_index=np.int64(episode.instruction_index),
        )
    unfinished.rename(path)


def load_demonstrations(directory: str | Path) -> Demonstrations:
    """Read every episode of a directory into memory.

    Raises:
        ConfigError: the directory is not one of demonstrations, or empty.
        SpecError: an episode does not fit the meta data or is not finite; names episode and field.
    """
    root = Path(directory)
    meta = read_meta(root)
    paths = sorted(root.glob("episode_*.npz"))
    if not paths:
        raise ConfigError(
            str(root), got="no episodes", expected="episode_*.npz", fix="lightvla collect --out"
        )
    lengths = [_num_steps(path) for path in paths]
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    size = meta.image_size
    images = np.empty((starts[-1], len(meta.cameras), size, size, 3), np.uint8)
    proprio = np.empty((starts[-1], meta.proprio_dim), np.float32)
    actions = np.empty((starts[-1], len(meta.action_names)), np.float32)
    instruction_index = np.empty(starts[-1], np.int64)
    for path, begin, end in zip(paths, starts, starts[1:], strict=False):
        episode = read_episode(path, meta)
        images[begin:end] = episode.images
        proprio[begin:end] = episode.proprio
        actions[begin:end] = episode.actions
        instruction_index[begin:end] = episode.instruction_index
    return Demonstrations(
        meta=meta,
        images=images,
        proprio=proprio,
        actions=actions,
        instruction_index=instruction_index,
        episode_starts=starts,
    )


def read_meta(directory: Path) -> DemonstrationMeta:
    """Read what the episodes share.

    Raises:
        ConfigError: the file is missing, damaged or of another schema.
    """
    path = directory / META_FILE
    try:
        values: dict[str, Any] = json.loads(path.read_text())
        sequences = {key: tuple(values[key]) for key in ("cameras", "action_names", "instructions")}
        meta = DemonstrationMeta(**{**values, **sequences})
    except FileNotFoundError as error:
        raise ConfigError(str(path), got="no such file", fix=f"lightvla collect --out {directory}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(str(path), got=f"{error}", expected=f"JSON of schema {SCHEMA}") from error
    if meta.schema != SCHEMA:
        raise ConfigError(str(path), got=f"schema {meta.schema}", expected=f"{SCHEMA}", fix="collect again")
    return meta


def read_episode(path: Path, meta: DemonstrationMeta) -> Episode:
    """Read and check one episode.

    Raises:
        SpecError: a field is missing, of the wrong shape or dtype, or not finite.
    """
    fields = _read_fields(path)
    steps = fields["actions"].shape[0] if fields["actions"].ndim else 0
    size = meta.image_size
    _check(path, fields, "images", (steps, len(meta.cameras), size, size, 3), np.uint8)
    _check(path, fields, "proprio", (steps, meta.proprio_dim), np.float32)
    _check(path, fields, "actions", (steps, len(meta.action_names)), np.float32)
    _check(path, fields, "instruction_index", (), np.int64)
    index = int(fields["instruction_index"])
    if not 0 <= index < len(meta.instructions):
        raise SpecError(
            f"{path.stem}: instruction_index", got=index, expected=f"0..{len(meta.instructions) - 1}"
        )
    return Episode(
        images=fields["images"],
        proprio=fields["proprio"],
        actions=fields["actions"],
        instruction_index=index,
    )


def _num_steps(path: Path) -> int:
    return len(np.atleast_1d(_read_fields(path, ("actions",))["actions"]))


def _read_fields(
    path: Path, names: tuple[str, ...] = ("images", "proprio", "actions", "instruction_index")
) -> dict[str, NDArray[Any]]:
    try:
        with np.load(path) as file:
            missing = [name for name in names if name not in file]
            if missing:
                raise SpecError(f"{path.stem}: {missing[0]}", got="no such field", fix=f"delete {path}")
            return {name: file[name] for name in names}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise SpecError(
            f"{path.stem}", got=f"{error}", expected="an .npz file", fix=f"delete {path}"
        ) from error


def _check(
    path: Path, fields: dict[str, NDArray[Any]], name: str, shape: tuple[int, ...], dtype: type
) -> None:
    array = fields[name]
    fix = f"delete {path} or collect again"
    if array.shape != shape or array.dtype != dtype:
        raise SpecError(
            f"{path.stem}: {name}",
            got=f"{array.dtype} {list(array.shape)}",
            expected=f"{np.dtype(dtype)} {list(shape)}",
            fix=fix,
        )
    if not np.isfinite(array).all():
        step = int(np.argwhere(~np.isfinite(array))[0][0])
        raise SpecError(f"{path.stem}: {name}", got=f"not finite at step {step}", expected="numbers", fix=fix)
