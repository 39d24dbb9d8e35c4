"""Frames out of a video file, one per control step."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lightvla_ros.core.errors import SpecError


def read_frames(
    path: Path, *, start_s: float, fps: float, count: int, what: str
) -> Iterator[NDArray[np.uint8]]:
    """Yield the frames of one episode.

    Args:
        path: of the video, which may hold other episodes before and after.
        start_s: where the episode begins.
        fps: frames a second, one per step.
        count: steps of the episode.
        what: the episode and field, as errors name them.

    Yields:
        uint8 [H, W, 3] RGB, `count` of them.

    Raises:
        SpecError: the file is missing, damaged or lacks frames.
    """
    import av

    found = 0
    try:
        with av.open(str(path)) as container:
            container.seek(int(start_s * av.time_base))
            for frame in container.decode(container.streams.video[0]):
                step = round((frame.time - start_s) * fps)
                if step < found:
                    continue  # decoding starts at the key frame before the episode
                if step > found:
                    break
                found += 1
                yield np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
                if found == count:
                    return
    except (OSError, ValueError, TypeError, IndexError, av.FFmpegError) as error:
        raise SpecError(
            what, got=f"{error} at step {found}", expected="a video", fix=f"fetch {path} again"
        ) from error
    raise SpecError(
        what,
        got=f"{found} frames in a row from {start_s:.2f} s",
        expected=f"{count}, one per step at {fps:g} a second",
        fix=f"fetch {path} again",
    )
