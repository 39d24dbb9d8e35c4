"""A video of what a policy saw and retained in one episode, kept only where it is wanted."""

from __future__ import annotations

import re
from pathlib import Path

from lightvla_ros.core.observation import ActionChunk, Observation
from lightvla_ros.evaluation.rollout import Task
from lightvla_ros.view.layout import mosaic
from lightvla_ros.view.video import VideoFile

_FPS = 10.0
_LONGEST_NAME = 60


class EpisodeVideo:
    """A frame per inference: both cameras, above what the policy retained of them.

    A context, at whose end the file is finished, and deleted unless it is wanted.

    Args:
        directory: where to; made where it is missing.
        task: the episode, which the file is named after.

    Attributes:
        is_wanted: whether the file stays; as it does when an episode breaks.
    """

    def __init__(self, directory: Path, task: Task) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        name = re.sub(r"\W+", "_", task.instruction)[:_LONGEST_NAME]
        self._path = directory / f"{task.number:04d}_{name}_{task.seed}.mp4"
        self._video = VideoFile(self._path, fps=_FPS)
        self.is_wanted = True

    def __enter__(self) -> EpisodeVideo:
        return self

    def __exit__(self, *_: object) -> None:
        self._video.close()
        if not self.is_wanted:
            self._path.unlink(missing_ok=True)

    def __call__(self, observation: Observation, chunk: ActionChunk) -> None:
        """Add the frame of one inference; one without masks has none."""
        if chunk.keep_masks:
            images = {camera: observation.images[camera] for camera in chunk.keep_masks}
            caption = f"{observation.instruction}: {chunk.num_retained} visual tokens"
            self._video.write(mosaic(images, chunk.keep_masks, caption))
