"""Video files, animations and pictures from RGB frames."""

from __future__ import annotations

from collections.abc import Iterable
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


def write_film(path: Path, frames: Iterable[NDArray[np.uint8]], *, fps: float) -> int:
    """Write frames, uint8 [H, W, 3] RGB of one size, as a video or an animation.

    Args:
        path: where to, ending in .mp4, or in .gif for one that is kept in memory until it is written.
        frames: in order.
        fps: frames per second.

    Returns:
        How many frames there were; without any, no file is written.

    Raises:
        LightVlaError: the name ends in something else, or the file cannot be written.
    """
    if path.suffix == ".mp4":
        with VideoFile(path, fps=fps) as video:
            for frame in frames:
                video.write(frame)
        return video.num_frames
    if path.suffix == ".gif":
        return _write_gif(path, list(frames), fps)
    raise LightVlaError(f"film {path}", got=f"the ending {path.suffix!r}", expected=".mp4 or .gif")


def _write_gif(path: Path, frames: list[NDArray[np.uint8]], fps: float) -> int:
    if not hasattr(cv2, "imwriteanimation"):
        raise LightVlaError(
            f"animation {path}",
            got=f"OpenCV {cv2.__version__}, which cannot write it",
            expected="OpenCV 4.11 or later",
            fix="pip install --upgrade opencv-python-headless, or write an .mp4",
        )
    animation = cv2.Animation()
    animation.frames = [cv2.cvtColor(frame, cv2.COLOR_RGB2BGR) for frame in frames]
    animation.durations = [round(1000 / fps)] * len(frames)
    if frames and not cv2.imwriteanimation(str(path), animation):
        raise LightVlaError(f"animation {path}", got="it cannot be written", fix="choose another --out")
    return len(frames)


def count_frames(path: Path) -> int:
    """Return how many frames of a video decode."""
    video = cv2.VideoCapture(str(path))
    count = 0
    while video.grab():
        count += 1
    video.release()
    return count


def write_picture(path: Path, frame: NDArray[np.uint8]) -> None:
    """Write uint8 [H, W, 3] RGB as an image file of the kind its name ends in.

    Raises:
        LightVlaError: the ending is of no kind that OpenCV writes, or the file cannot be written.
    """
    try:
        is_written = cv2.imwrite(str(path), cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    except cv2.error:  # an ending it does not know
        is_written = False
    if not is_written:
        raise LightVlaError(
            f"picture {path}",
            got="it cannot be written",
            expected="a writable folder and an ending such as .png or .jpg",
            fix="choose another --out",
        )
