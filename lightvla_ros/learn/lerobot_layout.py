"""Where a LeRobot data set keeps what: codebase versions v2.1 and v3.0, read without the lerobot package.

v2.1 has a parquet file and a video per camera for every episode; v3.0 puts many episodes into one file and
says in `meta/episodes` where each begins.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightvla_ros.core.errors import ConfigError, SpecError

INFO_FILE = Path("meta/info.json")
_FETCH = "fetch the data set again, whole"


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeRecord:
    """Where one episode is.

    Attributes:
        index: its number in the data set.
        length: steps.
        table: its parquet file.
        videos: video key -> file and the second its first frame has there.
    """

    index: int
    length: int
    table: Path
    videos: Mapping[str, tuple[Path, float]]

    def field(self, name: str) -> str:
        """Name a field of this episode, as errors do."""
        return f"episode_{self.index:06d}: {name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The meta data of a data set.

    Attributes:
        info: `meta/info.json`.
        tasks: task index -> sentence.
        records: the episodes in order.
    """

    info: Mapping[str, Any]
    tasks: Mapping[int, str]
    records: tuple[EpisodeRecord, ...]

    def feature(self, name: str, kinds: tuple[str, ...] = ()) -> Mapping[str, Any]:
        """Return what the data set says of a feature.

        Args:
            name: key of the feature.
            kinds: dtypes that will do; () for any numeric.

        Raises:
            ConfigError: there is no such feature of these kinds; the message lists those there are.
        """
        pictures = ("video", "image")
        fitting = [
            key
            for key, value in self.info["features"].items()
            if (value["dtype"] in kinds if kinds else value["dtype"] not in (*pictures, "string"))
        ]
        if name not in fitting:
            raise ConfigError(
                f"feature '{name}' of the LeRobot data set",
                got="no such feature",
                expected=f"one of {fitting}",
                fix="correct the mapping",
            )
        return self.info["features"][name]


def read_layout(root: Path, features: tuple[str, ...]) -> Layout:
    """Read the meta data of a data set.

    Args:
        root: its directory.
        features: those that must have statistics. Training computes its own; a data set without any was
            not finished or not fetched whole.

    Raises:
        ConfigError: a file is missing or damaged, or the version is not supported.
        SpecError: statistics are missing; names episode and feature.
        KeyError, TypeError, ValueError, AttributeError: an entry is missing or of another kind.
    """
    info = _read_info(root)
    read = {"v2.1": _read_v21, "v3.0": _read_v30}.get(info["codebase_version"])
    if read is None:
        raise ConfigError(
            f"{root / INFO_FILE}: codebase_version",
            got=info["codebase_version"],
            expected="v2.1 or v3.0",
            fix="convert the data set with the lerobot package's own script",
        )
    tasks, records = read(root, info, features)
    if not records or len(records) != info.get("total_episodes", len(records)):
        raise ConfigError(
            f"{root / 'meta'}: episodes",
            got=len(records),
            expected=f"total_episodes of info.json, {info.get('total_episodes')}, and at least one",
            fix=_FETCH,
        )
    return Layout(info=info, tasks=tasks, records=records)


_Read = tuple[dict[int, str], tuple[EpisodeRecord, ...]]


def _read_v21(root: Path, info: Mapping[str, Any], features: tuple[str, ...]) -> _Read:
    tasks = {row["task_index"]: str(row["task"]) for row in _json_lines(root / "meta/tasks.jsonl")}
    statistics = {
        row["episode_index"]: row["stats"] for row in _json_lines(root / "meta/episodes_stats.jsonl")
    }
    records = []
    for row in sorted(_json_lines(root / "meta/episodes.jsonl"), key=lambda row: row["episode_index"]):
        index = row["episode_index"]
        place = {"episode_index": index, "episode_chunk": index // info["chunks_size"]}
        record = EpisodeRecord(
            index=index,
            length=row["length"],
            table=root / info["data_path"].format(**place),
            videos={
                key: (root / info["video_path"].format(**place, video_key=key), 0.0)
                for key in _video_keys(info)
            },
        )
        _check_statistics(statistics.get(index, {}), features, record.field)
        records.append(record)
    return tasks, tuple(records)


def _read_v30(root: Path, info: Mapping[str, Any], features: tuple[str, ...]) -> _Read:
    _check_statistics(_read_json(root / "meta/stats.json"), features, lambda name: f"every episode: {name}")
    # pandas wrote the sentences as the index, whose column has no name of its own.
    tasks = {
        row["task_index"]: str(row["task"] if "task" in row else row["__index_level_0__"])
        for row in _parquet_rows(root / "meta/tasks.parquet")
    }
    paths = sorted((root / "meta/episodes").glob("*/*.parquet"))
    rows = sorted(
        (row for path in paths for row in _parquet_rows(path)), key=lambda row: row["episode_index"]
    )
    return tasks, tuple(_record_v30(root, info, row) for row in rows)


def _record_v30(root: Path, info: Mapping[str, Any], row: Mapping[str, Any]) -> EpisodeRecord:
    def place(prefix: str) -> dict[str, int]:
        return {name: row[f"{prefix}/{name}"] for name in ("chunk_index", "file_index")}

    return EpisodeRecord(
        index=row["episode_index"],
        length=row["length"],
        table=root / info["data_path"].format(**place("data")),
        videos={
            key: (
                root / info["video_path"].format(**place(f"videos/{key}"), video_key=key),
                float(row[f"videos/{key}/from_timestamp"]),
            )
            for key in _video_keys(info)
        },
    )


def _video_keys(info: Mapping[str, Any]) -> list[str]:
    return [key for key, value in info["features"].items() if value["dtype"] == "video"]


def _check_statistics(
    statistics: Mapping[str, Any], features: tuple[str, ...], field: Callable[[str], str]
) -> None:
    for name in features:
        if name not in statistics:
            raise SpecError(
                field(f"statistics of {name}"), got="none", expected="some of each feature", fix=_FETCH
            )


def _read_info(root: Path) -> dict[str, Any]:
    info = _read_json(root / INFO_FILE)
    missing = {"codebase_version", "fps", "features", "data_path"} - set(info)
    if missing:
        raise ConfigError(
            str(root / INFO_FILE),
            got=f"no {sorted(missing)}",
            expected="the info.json of a LeRobot data set",
            fix=_FETCH,
        )
    return info


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(str(path), got=f"{error}", expected="JSON", fix=_FETCH) from error
    if not isinstance(value, dict):
        raise ConfigError(str(path), got=type(value).__name__, expected="a JSON object", fix=_FETCH)
    return value


def _json_lines(path: Path) -> list[dict[str, Any]]:
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise ConfigError(str(path), got=f"{error}", expected="one JSON object a line", fix=_FETCH) from error


def _parquet_rows(path: Path) -> Iterator[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        # An episode's statistics are a hundred columns that nobody asks for here.
        columns = [name for name in file.schema_arrow.names if not name.startswith("stats/")]
        yield from file.read(columns=columns).to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise ConfigError(str(path), got=f"{error}", expected="a parquet file", fix=_FETCH) from error
