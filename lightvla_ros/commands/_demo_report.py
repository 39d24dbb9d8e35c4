"""What `lightvla demo` leaves behind: a video, a picture, a table and a summary."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lightvla_ros.core.errors import LightVlaError
from lightvla_ros.view.layout import draw_record
from lightvla_ros.view.video import VideoFile, count_frames, write_picture

if TYPE_CHECKING:
    from lightvla_ros.nodes.demo_monitor import DemoMonitor, SeenInference

VIDEO_FPS = 10.0
# The picture is taken this long into an episode, when the arm is at work.
PICTURE_AFTER_S = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeResult:
    """How one episode went; `steps` are control steps of the world from its reset."""

    instruction: str
    seed: int
    success: bool
    steps: int
    retained_mean: float


class Recorder:
    """Draw the frames of a demo into `demo.mp4`, at the speed they came, and one of them into `demo.png`."""

    def __init__(self, directory: Path) -> None:
        self.video = VideoFile(directory / "demo.mp4", fps=VIDEO_FPS)
        self.picture = directory / "demo.png"
        self._started_s: float | None = None
        self._num_drawn = 0
        self._candidate: NDArray[np.uint8] | None = None
        self._best: tuple[bool, NDArray[np.uint8]] | None = None

    def start_episode(self) -> None:
        """Begin a new episode's picture and pace."""
        self._started_s = None
        self._num_drawn = 0
        self._candidate = None

    def add(self, seen: SeenInference) -> None:
        """Draw an inference as often as the video needs to keep pace with the world; maybe not at all."""
        now_s = time.monotonic()
        self._started_s = now_s if self._started_s is None else self._started_s
        num_due = 1 + int((now_s - self._started_s) * VIDEO_FPS)
        if num_due <= self._num_drawn:
            return
        drawn = draw_record(seen.record, seen.images)
        for _ in range(num_due - self._num_drawn):
            self.video.write(drawn)
        self._num_drawn = num_due
        if self._candidate is None or num_due <= PICTURE_AFTER_S * VIDEO_FPS:
            self._candidate = drawn

    def end_episode(self, *, success: bool) -> None:
        """Keep the episode's picture when it is the first, or the first of a success."""
        if self._candidate is not None and (self._best is None or (success and not self._best[0])):
            self._best = success, self._candidate

    def close(self) -> None:
        """Finish the video and write the picture.

        Raises:
            LightVlaError: nothing was drawn, or the video does not play back.
        """
        self.video.close()
        played = count_frames(self.video.path) if self.video.num_frames else 0
        if self._best is None or played != self.video.num_frames:
            raise LightVlaError(
                f"video {self.video.path}",
                got=f"{played} frames that play",
                expected=f"at least one, and the {self.video.num_frames} written",
                fix="read the logs beside it; no frame at all means no masks were published",
            )
        write_picture(self.picture, self._best[1])


def describe_policy(engine: str, notes: Mapping[str, Any]) -> str:
    """Return which policy runs and, a line per subject, what its bundle notes about itself."""
    lines = [f"policy {engine}"]
    for subject, facts in notes.items():
        told = (
            ", ".join(f"{name} {fact}" for name, fact in facts.items())
            if isinstance(facts, Mapping)
            else facts
        )
        lines.append(f"  {subject}: {told}")
    return "\n".join(lines)


def summarise(results: Sequence[EpisodeResult], monitor: DemoMonitor, recorder: Recorder) -> dict[str, Any]:
    """Return the figures of a demo, ready for JSON."""
    retained = monitor.retained or [0]
    return {
        "episodes": len(results),
        "success": sum(result.success for result in results) / len(results),
        "chunk_rate_hz": round(monitor.chunks.hz, 2),
        "command_rate_hz": round(monitor.commands.hz, 2),
        "retained_mean": round(sum(retained) / len(retained), 2),
        "retained_min": min(retained),
        "retained_max": max(retained),
        "num_visual_tokens": monitor.num_visual_tokens,
        "frames": len(monitor.retained),
        "world_overruns": monitor.status["overruns"],
        "stage_ms": stage_latencies(monitor.diagnostics),
        "results": [asdict(result) for result in results],
        "video": str(recorder.video.path),
        "picture": str(recorder.picture),
    }


def stage_latencies(diagnostics: Mapping[str, str]) -> dict[str, dict[str, float]]:
    """Return stage -> percentile ("p50", "p95", "p99") -> milliseconds, from `<stage>_<percentile>_ms`."""
    stages: dict[str, dict[str, float]] = {}
    for key, value in diagnostics.items():
        if match := re.fullmatch(r"(.+)_(p\d+)_ms", key):
            stages.setdefault(match[1], {})[match[2]] = float(value)
    return stages


def table(summary: Mapping[str, Any]) -> str:
    """Return the figures of `summarise` as text for people."""
    lines = [f"{'instruction':<52} {'seed':>5} {'success':>8} {'steps':>6} {'retained':>9}"]
    for result in summary["results"]:
        lines.append(
            f"{result['instruction']:<52} {result['seed']:>5} {'yes' if result['success'] else 'no':>8}"
            f" {result['steps']:>6} {result['retained_mean']:>9.1f}"
        )
    lines += [
        "",
        f"success {summary['success']:.0%} of {summary['episodes']} episodes",
        f"chunks {summary['chunk_rate_hz']:.2f} Hz, commands {summary['command_rate_hz']:.2f} Hz",
        f"retained {summary['retained_mean']:.1f} of {summary['num_visual_tokens']} visual tokens,"
        + f" {summary['retained_min']} to {summary['retained_max']} over {summary['frames']} frames",
        *(_stage_line(stage, latencies) for stage, latencies in summary["stage_ms"].items()),
        f"video {summary['video']}",
        f"picture {summary['picture']}",
    ]
    return "\n".join(lines)


def _stage_line(stage: str, latencies: Mapping[str, float]) -> str:
    return f"  {stage:<16}" + "".join(f"  {name} {value:7.2f} ms" for name, value in latencies.items())
