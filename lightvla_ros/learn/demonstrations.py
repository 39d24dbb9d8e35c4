"""Demonstrations on disk: one file per episode, written by `lightvla collect`, read by `lightvla train`.

Directories in LeRobot's layout are read as well (`learn/lerobot.py`).
"""

from __future__ import annotations

import json
import math
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightvla_ros.core.errors import ConfigError, SpecError
from lightvla_ros.learn.memory import require_memory

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


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeSource:
    """A directory of episodes that are read and checked one by one.

    Attributes:
        meta: what the episodes share.
        lengths: steps of each episode.
        read: number of an episode -> the episode; raises `SpecError` naming episode and field.
    """

    meta: DemonstrationMeta
    lengths: tuple[int, ...]
    read: Callable[[int], Episode]


def load_demonstrations(*directories: str | Path, mapping: str | Path | None = None) -> Demonstrations:
    """Read every episode of the directories into memory, one directory after the other.

    Args:
        directories: of `lightvla collect`, or in LeRobot's layout; they may differ in instructions alone.
        mapping: for LeRobot's, see `LeRobotMapping.read`; None takes the `lightvla.yaml` inside each.

    Raises:
        ConfigError: a directory is not one of demonstrations, or empty, does not fit the first, or memory
            is too small.
        SpecError: an episode does not fit the meta data or is not finite; names episode and field.
    """
    if not directories:
        raise ConfigError("demonstrations", got="no directory", expected="at least one")
    sources = [_open(Path(directory), mapping) for directory in directories]
    meta = _common_meta([source.meta for source in sources], directories)
    starts = np.cumsum([0, *(steps for source in sources for steps in source.lengths)], dtype=np.int64)
    result = _allocate(meta, starts)
    episodes = ((source, number) for source in sources for number in range(len(source.lengths)))
    for (source, number), begin, end in zip(episodes, starts[:-1], starts[1:], strict=True):
        episode = source.read(number)
        result.images[begin:end] = episode.images
        result.proprio[begin:end] = episode.proprio
        result.actions[begin:end] = episode.actions
        instruction = source.meta.instructions[episode.instruction_index]
        result.instruction_index[begin:end] = meta.instructions.index(instruction)
    return result


def _open(directory: Path, mapping: str | Path | None) -> EpisodeSource:
    from lightvla_ros.learn.lerobot import is_lerobot, open_lerobot

    if is_lerobot(directory):
        return open_lerobot(directory, mapping)
    meta = read_meta(directory)
    paths = sorted(directory.glob("episode_*.npz"))
    if not paths:
        raise ConfigError(
            str(directory), got="no episodes", expected="episode_*.npz", fix="lightvla collect --out"
        )
    lengths = tuple(_num_steps(path) for path in paths)
    return EpisodeSource(meta=meta, lengths=lengths, read=lambda number: read_episode(paths[number], meta))


def _common_meta(metas: Sequence[DemonstrationMeta], directories: Sequence[str | Path]) -> DemonstrationMeta:
    """Return the first with the instructions of all; the rest must agree."""
    first = asdict(metas[0])
    for directory, meta in zip(directories, metas, strict=True):
        for name, value in asdict(meta).items():
            if name != "instructions" and value != first[name]:
                raise ConfigError(
                    f"{directory}: {name}",
                    got=value,
                    expected=f"{first[name]}, as in {directories[0]}",
                    fix="train on demonstrations of one kind",
                )
    instructions = dict.fromkeys(text for meta in metas for text in meta.instructions)
    return replace(metas[0], instructions=tuple(instructions))


def _allocate(meta: DemonstrationMeta, episode_starts: NDArray[np.int64]) -> Demonstrations:
    steps, shape = int(episode_starts[-1]), (len(meta.cameras), meta.image_size, meta.image_size, 3)
    require_memory(steps * math.prod(shape), f"images of {steps} demonstrated steps")
    return Demonstrations(
        meta=meta,
        images=np.empty((steps, *shape), np.uint8),
        proprio=np.empty((steps, meta.proprio_dim), np.float32),
        actions=np.empty((steps, len(meta.action_names)), np.float32),
        instruction_index=np.empty(steps, np.int64),
        episode_starts=episode_starts,
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
        raise ConfigError(
            str(directory),
            got="no demonstrations" if directory.is_dir() else "no such directory",
            expected=f"one with {META_FILE}, or a LeRobot data set's root",
            fix=f"lightvla collect --out {directory}",
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        expected = f"JSON of schema {SCHEMA}"
        raise ConfigError(str(path), got=f"{error}", expected=expected, fix="collect again") from error
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
    if steps == 0:
        raise SpecError(f"{path.stem}: actions", got="no steps", expected="at least 1", fix=f"delete {path}")
    size = meta.image_size
    _check(path, fields, "images", (steps, len(meta.cameras), size, size, 3), np.uint8)
    _check(path, fields, "proprio", (steps, meta.proprio_dim), np.float32)
    _check(path, fields, "actions", (steps, len(meta.action_names)), np.float32)
    _check(path, fields, "instruction_index", (), np.int64)
    index = int(fields["instruction_index"])
    if not 0 <= index < len(meta.instructions):
        raise SpecError(
            f"{path.stem}: instruction_index",
            got=index,
            expected=f"0..{len(meta.instructions) - 1}",
            fix=f"delete {path}",
        )
    values: dict[str, Any] = {**fields, "instruction_index": index}
    return Episode(**values)


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
    except (OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile) as error:
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
