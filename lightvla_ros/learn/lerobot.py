"""LeRobot data sets as demonstrations: a directory in the layout of v2.1 or v3.0 and a mapping.

The mapping says which camera, state and action of the data set are the policy's; nothing is guessed. The
lerobot package is not needed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from lightvla_ros.core.errors import ConfigError, SpecError
from lightvla_ros.core.preprocess import resize
from lightvla_ros.learn.demonstrations import DemonstrationMeta, Episode, EpisodeSource
from lightvla_ros.learn.lerobot_layout import INFO_FILE, EpisodeRecord, Layout, read_layout
from lightvla_ros.learn.lerobot_mapping import MAPPING_FILE, LeRobotMapping
from lightvla_ros.learn.video import read_frames

if TYPE_CHECKING:
    import pyarrow as pa

# What a gripper action may lie outside its two values: controllers overshoot a little.
_GRIPPER_SLACK = 0.05
_REMOVE = "remove the episode from the data set"


def is_lerobot(directory: Path) -> bool:
    """Whether a directory looks like a LeRobot data set."""
    return (directory / INFO_FILE).exists()


def open_lerobot(root: Path, mapping: str | Path | None) -> EpisodeSource:
    """Open a LeRobot data set.

    Args:
        root: directory of the data set.
        mapping: see `LeRobotMapping.read`; None reads `lightvla.yaml` in the directory.

    Raises:
        ConfigError: the mapping or the meta data are damaged or do not fit each other, or the version is
            not supported.
        SpecError: statistics are missing.
    """
    _require_libraries()
    parts = LeRobotMapping.read(mapping or root / MAPPING_FILE)
    try:
        layout = read_layout(root, (*parts.state, *parts.action))
        reader = _make_reader(root, layout, parts)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise ConfigError(
            str(root / "meta"), got=repr(error), expected="LeRobot meta data", fix="fetch the data set again"
        ) from error
    return EpisodeSource(
        meta=reader.meta,
        lengths=tuple(record.length for record in layout.records),
        read=lambda number: reader.read(layout.records[number]),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Camera:
    """How a camera's images are kept.

    Attributes:
        is_video: in video files; else as encoded bytes in the table.
        shape: [H, W, 3].
    """

    is_video: bool
    shape: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reader:
    """Reads and checks one episode at a time."""

    meta: DemonstrationMeta
    mapping: LeRobotMapping
    layout: Layout
    cameras: Mapping[str, _Camera]
    fps: float

    def read(self, record: EpisodeRecord) -> Episode:
        table, mapping = _read_table(record, self._columns()), self.mapping
        state = _numbers(record, table, mapping.state, mapping.state_columns)
        action = _numbers(record, table, mapping.action, mapping.action_columns)
        _check_width(record, "state", mapping.state, state, self.meta.proprio_dim)
        _check_width(record, "action", mapping.action, action, len(self.meta.action_names))
        action[:, -1] = _gripper_label(record, action[:, -1], mapping.gripper)
        cameras = [self._images(record, table, key) for key in mapping.cameras.values()]
        return Episode(
            images=np.stack(cameras, axis=1),
            proprio=state,
            actions=action,
            instruction_index=self._instruction_index(record, table),
        )

    def _columns(self) -> list[str]:
        images = [key for key, camera in self.cameras.items() if not camera.is_video]
        return list(dict.fromkeys([*self.mapping.state, *self.mapping.action, *images, "task_index"]))

    def _images(self, record: EpisodeRecord, table: pa.Table, key: str) -> NDArray[np.uint8]:
        """Return one camera's images of an episode, uint8 [T, S, S, 3]."""
        camera = self.cameras[key]
        if camera.is_video:
            path, start_s = record.videos[key]
            what, count = record.field(key), record.length
            frames = read_frames(path, start_s=start_s, fps=self.fps, count=count, what=what)
        else:
            frames = _decode_column(record, table, key)
        size = self.mapping.image_size
        images = np.empty((record.length, size, size, 3), np.uint8)
        for step, frame in enumerate(frames):
            if frame.shape != camera.shape:
                raise SpecError(
                    record.field(key),
                    got=f"an image of {list(frame.shape)} at step {step}",
                    expected=f"{list(camera.shape)}, as info.json says",
                    fix=_REMOVE,
                )
            images[step] = resize(frame, size, jpeg=False)
        return images

    def _instruction_index(self, record: EpisodeRecord, table: pa.Table) -> int:
        tasks = set(table["task_index"].to_pylist())
        if len(tasks) != 1 or not tasks <= set(self.layout.tasks):
            raise SpecError(
                record.field("task_index"),
                got=sorted(tasks, key=str),
                expected=f"one of {sorted(self.layout.tasks)} throughout",
                fix="split the episode where its task changes",
            )
        return self.meta.instructions.index(self.layout.tasks[tasks.pop()])


def _require_libraries() -> None:
    try:
        import av  # noqa: F401
        import pyarrow  # noqa: F401
        import yaml  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            "LeRobot data set",
            got=str(error),
            expected="pyarrow, av and pyyaml",
            fix="pip install 'lightvla_ros[lerobot]'",
        ) from error


def _make_reader(root: Path, layout: Layout, mapping: LeRobotMapping) -> _Reader:
    cameras = {key: _camera(layout.feature(key, ("video", "image"))) for key in mapping.cameras.values()}
    state_names = _names(layout, mapping.state, mapping.state_columns, "state_columns")
    action_names = _names(layout, mapping.action, mapping.action_columns, "action_columns")
    if mapping.action_names and len(mapping.action_names) != len(action_names):
        raise ConfigError(
            "action_names of the LeRobot mapping",
            got=list(mapping.action_names),
            expected=f"{len(action_names)} names",
        )
    fps = float(layout.info["fps"])
    if not 0.0 < fps < math.inf:
        raise ValueError(f"fps of {fps}")
    meta = DemonstrationMeta(
        world=root.resolve().name,
        cameras=tuple(mapping.cameras),
        image_size=mapping.image_size,
        action_names=mapping.action_names or action_names,
        proprio_dim=len(state_names),
        step_period_s=1.0 / fps,
        instructions=tuple(dict.fromkeys(layout.tasks.values())),
    )
    return _Reader(meta=meta, mapping=mapping, layout=layout, cameras=cameras, fps=fps)


def _names(layout: Layout, features: tuple[str, ...], columns: tuple[int, ...], what: str) -> tuple[str, ...]:
    """Name the numbers taken of some features: as the data set does, else feature and position."""
    names: list[str] = []
    for name in features:
        feature = layout.feature(name)
        own, width = feature.get("names"), int(np.prod(feature["shape"]))
        if isinstance(own, dict):  # one entry, such as {"motors": [...]}
            own = next(iter(own.values()), None)
        if not isinstance(own, list) or len(own) != width:
            own = [f"{name}_{i}" for i in range(width)]
        names += [str(entry) for entry in own]
    if any(not 0 <= column < len(names) for column in columns):
        raise ConfigError(
            f"{what} of the LeRobot mapping", got=list(columns), expected=f"0..{len(names) - 1}: {names}"
        )
    return tuple(names[i] for i in columns) if columns else tuple(names)


def _read_table(record: EpisodeRecord, columns: list[str]) -> pa.Table:
    """Read an episode's rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        missing = set(columns) - set(pq.read_schema(record.table).names)
        if missing:
            raise SpecError(record.field(min(missing)), got="no such column", fix=f"check {record.table}")
        table = pq.read_table(record.table, columns=columns, filters=[("episode_index", "=", record.index)])
    except (OSError, pa.ArrowException) as error:
        raise SpecError(
            record.field("table"),
            got=f"{error}",
            expected="a parquet file",
            fix=f"fetch {record.table} again",
        ) from error
    if table.num_rows != record.length or record.length == 0:
        raise SpecError(
            record.field("length"),
            got=f"{table.num_rows} rows",
            expected=f"the {record.length} of the episode's meta data, at least 1",
            fix=_REMOVE,
        )
    return table


def _numbers(
    record: EpisodeRecord, table: pa.Table, features: tuple[str, ...], columns: tuple[int, ...]
) -> NDArray[np.float32]:
    """Return features one after the other, float32 [T, width], or some columns of them."""
    parts = []
    for name in features:
        try:
            values = np.array(table[name].to_pylist(), dtype=np.float32).reshape(record.length, -1)
        except (TypeError, ValueError) as error:
            expected = "the same count of numbers at every step"
            raise SpecError(record.field(name), got=f"{error}", expected=expected, fix=_REMOVE) from error
        if not np.isfinite(values).all():
            step = int(np.argwhere(~np.isfinite(values))[0][0])
            got = f"not finite at step {step}"
            raise SpecError(record.field(name), got=got, expected="numbers", fix=_REMOVE)
        parts.append(values)
    joined = np.concatenate(parts, axis=1)
    # The meta data have checked the columns against the widths they state, not against these rows.
    return joined[:, list(columns)] if columns and max(columns) < joined.shape[1] else joined


def _check_width(
    record: EpisodeRecord, what: str, features: tuple[str, ...], values: NDArray[np.float32], width: int
) -> None:
    if values.shape[1] != width:
        raise SpecError(
            record.field(" + ".join(features)),
            got=f"{what} of {values.shape[1]} numbers",
            expected=f"{width}, as info.json and the mapping say",
            fix=_REMOVE,
        )


def _gripper_label(
    record: EpisodeRecord, values: NDArray[np.float32], gripper: Mapping[str, float]
) -> NDArray[np.float32]:
    """Turn the data set's gripper values into 1 open / 0 closed."""
    label = (values - gripper["closed"]) / (gripper["open"] - gripper["closed"])
    outside = (label < -_GRIPPER_SLACK) | (label > 1.0 + _GRIPPER_SLACK)
    if outside.any():
        step = int(np.argmax(outside))
        raise SpecError(
            record.field("gripper"),
            got=f"{values[step]:g} at step {step}",
            expected=f"{gripper['closed']:g} (closed) to {gripper['open']:g} (open)",
            fix="correct `gripper` in the mapping, or the order of the action's columns",
        )
    return np.clip(label, 0.0, 1.0).astype(np.float32)


def _camera(feature: Mapping[str, Any]) -> _Camera:
    shape = [int(length) for length in feature["shape"]]
    # The axis of length 3 is the colour, whatever the data set calls its axes.
    height, width = shape[1:] if shape[0] == 3 else shape[:2]
    return _Camera(is_video=feature["dtype"] == "video", shape=(height, width, 3))


def _decode_column(record: EpisodeRecord, table: pa.Table, key: str) -> Iterator[NDArray[np.uint8]]:
    """Yield images kept as encoded bytes in the table."""
    for step, cell in enumerate(table[key].to_pylist()):
        encoded = (cell or {}).get("bytes") or b""
        image = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR) if encoded else None
        if image is None:
            got = f"no readable image at step {step}"
            raise SpecError(record.field(key), got=got, expected="PNG or JPEG", fix=_REMOVE)
        yield np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
