"""Small data sets in LeRobot's two layouts, for tests to read and to spoil."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

FPS = 10
HEIGHT, WIDTH = 48, 64
FRONT, WRIST = "observation.images.front", "observation.images.wrist"
VERSIONS = ("v2.1", "v3.0")


@dataclass
class ToyEpisode:
    """What is written of an episode: 4 numbers of state, x, y and gripper (-1 open, 1 closed) of action."""

    state: list[list[float]]
    action: list[list[float]]
    task_index: list[int]
    images: dict[str, np.ndarray]
    claimed_length: int | None = None


@dataclass
class ToyDataSet:
    """All that is written; tests change it before or the files afterwards."""

    version: str
    episodes: list[ToyEpisode]
    tasks: list[str] = field(default_factory=lambda: ["take the cup", "pour"])
    with_statistics: bool = True
    codec: str = "libx264"
    front_dtype: str = "video"

    def write(self, root: Path) -> None:
        (root / "meta").mkdir(parents=True)
        (root / "meta/info.json").write_text(json.dumps(self._info()))
        (self._write_v21 if self.version == "v2.1" else self._write_v30)(root)

    def _info(self) -> dict[str, Any]:
        def camera(dtype: str) -> dict[str, Any]:
            return {"dtype": dtype, "shape": [3, HEIGHT, WIDTH], "names": ["channels", "height", "width"]}

        v21 = self.version == "v2.1"
        return {
            "codebase_version": self.version,
            "total_episodes": len(self.episodes),
            "chunks_size": 1000,
            "fps": FPS,
            "data_path": "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
            if v21
            else "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
            "video_path": "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
            if v21
            else "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
            "features": {
                "observation.state": {"dtype": "float32", "shape": [4], "names": None},
                "action": {"dtype": "float32", "shape": [3], "names": {"motors": ["x", "y", "gripper"]}},
                FRONT: camera(self.front_dtype),
                WRIST: camera("video"),
                "task_index": {"dtype": "int64", "shape": [1], "names": None},
            },
        }

    def _video_keys(self) -> list[str]:
        return [key for key in (FRONT, WRIST) if key == WRIST or self.front_dtype == "video"]

    def _rows(self, index: int, first: int) -> dict[str, list[Any]]:
        episode = self.episodes[index]
        steps = len(episode.action)
        rows: dict[str, list[Any]] = {
            "observation.state": episode.state,
            "action": episode.action,
            "frame_index": list(range(steps)),
            "timestamp": [i / FPS for i in range(steps)],
            "episode_index": [index] * steps,
            "index": list(range(first, first + steps)),
            "task_index": episode.task_index,
        }
        if self.front_dtype == "image":
            rows[FRONT] = [
                {"bytes": cv2.imencode(".png", i[..., ::-1])[1].tobytes(), "path": None}
                for i in episode.images[FRONT]
            ]
        return rows

    def _length(self, index: int) -> int:
        episode = self.episodes[index]
        return len(episode.action) if episode.claimed_length is None else episode.claimed_length

    def _write_v21(self, root: Path) -> None:
        _write_lines(
            root / "meta/tasks.jsonl", [{"task_index": i, "task": t} for i, t in enumerate(self.tasks)]
        )
        episodes, statistics = [], []
        for index, episode in enumerate(self.episodes):
            episodes.append({"episode_index": index, "tasks": self.tasks[:1], "length": self._length(index)})
            stats = {key: {"count": [1]} for key in ("observation.state", "action")}
            statistics.append({"episode_index": index, "stats": stats})
            _write_table(root / f"data/chunk-000/episode_{index:06d}.parquet", self._rows(index, 0))
            for key in self._video_keys():
                path = root / f"videos/chunk-000/{key}/episode_{index:06d}.mp4"
                write_video(path, episode.images[key], self.codec)
        _write_lines(root / "meta/episodes.jsonl", episodes)
        _write_lines(
            root / "meta/episodes_stats.jsonl", statistics if self.with_statistics else statistics[:1]
        )

    def _write_v30(self, root: Path) -> None:
        columns = {"task_index": list(range(len(self.tasks))), "__index_level_0__": self.tasks}
        pq.write_table(pa.table(columns), root / "meta/tasks.parquet")
        stats = {"observation.state": {"count": [1]}, "action": {"count": [1]}}
        (root / "meta/stats.json").write_text(json.dumps(stats if self.with_statistics else {}))
        table: dict[str, list[Any]] = {}
        records, first = [], 0
        for index in range(len(self.episodes)):
            for name, values in self._rows(index, first).items():
                table.setdefault(name, []).extend(values)
            records.append(self._record(index, first))
            first += len(self.episodes[index].action)
        _write_table(root / "data/chunk-000/file-000.parquet", table)
        _write_table(
            root / "meta/episodes/chunk-000/file-000.parquet",
            {key: [record[key] for record in records] for key in records[0]},
        )
        for key in self._video_keys():
            images = np.concatenate([episode.images[key] for episode in self.episodes])
            write_video(root / f"videos/{key}/chunk-000/file-000.mp4", images, self.codec)

    def _record(self, index: int, first: int) -> dict[str, Any]:
        last = first + len(self.episodes[index].action)
        record = {
            "episode_index": index,
            "tasks": self.tasks[:1],
            "length": self._length(index),
            "data/chunk_index": 0,
            "data/file_index": 0,
            "dataset_from_index": first,
            "dataset_to_index": last,
            "stats/action/mean": [0.0],
        }
        for key in self._video_keys():
            place = {
                "chunk_index": 0,
                "file_index": 0,
                "from_timestamp": first / FPS,
                "to_timestamp": last / FPS,
            }
            record |= {f"videos/{key}/{name}": value for name, value in place.items()}
        return record


def toy_episode(steps: int, *, seed: int = 0, task: int = 0) -> ToyEpisode:
    """An episode whose images are flat colours that tell camera and step."""
    rng = np.random.default_rng(seed)
    images = {key: np.empty((steps, HEIGHT, WIDTH, 3), np.uint8) for key in (FRONT, WRIST)}
    for step in range(steps):
        images[FRONT][step] = (10 * step + 20, 200 - 40 * seed, 60)
        images[WRIST][step] = (60, 200 - 40 * seed, 10 * step + 20)
    action = rng.uniform(-1, 1, (steps, 3))
    action[:, 2] = np.where(np.arange(steps) < steps // 2, -1.0, 1.0)
    return ToyEpisode(
        state=rng.normal(size=(steps, 4)).tolist(),
        action=action.tolist(),
        task_index=[task] * steps,
        images=images,
    )


def write_video(path: Path, images: np.ndarray, codec: str = "libx264") -> None:
    """Write frames with a key frame every few, so that reading an episode has to look for its start."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=FPS, options={"g": "4", "crf": "10"})
        stream.height, stream.width = images.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for image in images:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())


def _write_table(path: Path, columns: dict[str, list[Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)


def _write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
