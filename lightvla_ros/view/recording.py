"""A video file and a picture from RGB frames."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

import cv2
import numpy as np
from numpy.typing import NDArray

from lightvla_ros.core.errors import LightVlaError


class VideoFile:
    """An MP4 file of RGB frames of one size, opened with the first frame.

    Args:
        path: where to write, ending in `.mp4`.
        fps: frames per second at which it plays.
    """

    def __init__(self, path: Path, *, fps: float) -> None:
        self.path = path
        self.num_frames = 0
        self._fps = fps
        self._writer: cv2.VideoWriter | None = None

    def __enter__(self) -> VideoFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def write(self, frame: NDArray[np.uint8]) -> None:
        """Append a frame, uint8 [H, W, 3] RGB.

        Raises:
            LightVlaError: the file cannot be opened for writing.
        """
        if self._writer is None:
            self._writer = self._open(frame)
        self._writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
        self.num_frames += 1

    def close(self) -> None:
        """Finish the file; further frames are an error."""
        if self._writer is not None:
            self._writer.release()

    def _open(self, frame: NDArray[np.uint8]) -> cv2.VideoWriter:
        height, width = frame.shape[:2]
        writer = cv2.VideoWriter(str(self.path), cv2.VideoWriter.fourcc(*"mp4v"), self._fps, (width, height))
        if not writer.isOpened():
            raise LightVlaError(
                f"video {self.path}",
                got="OpenCV cannot write it",
                expected="a writable folder and an OpenCV with the mp4v codec",
                fix="choose another --out, or install opencv-python-headless from PyPI",
            )
        return writer


def count_frames(path: Path) -> int:
    """Return how many frames of a video decode."""
    video = cv2.VideoCapture(str(path))
    count = 0
    while video.grab():
        count += 1
    video.release()
    return count


def write_picture(path: Path, frame: NDArray[np.uint8]) -> None:
    """Write uint8 [H, W, 3] RGB as an image file of the kind its name ends in."""
    if not cv2.imwrite(str(path), cv2.cvtColor(frame, cv2.COLOR_RGB2BGR)):
        raise LightVlaError(f"picture {path}", got="it cannot be written", fix="choose another --out")
