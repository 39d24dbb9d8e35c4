"""Bring the frames of several cameras together: the newest set whose stamps agree."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lightvla_ros.core.observation import Observation

_HISTORY = 8


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Frame:
    """One camera image.

    Attributes:
        image: uint8 [H, W, 3], RGB.
        stamp_ns: when it was taken.
    """

    image: NDArray[np.uint8]
    stamp_ns: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StampedObservation(Observation):
    """An observation that remembers when each image was taken.

    Attributes:
        image_stamps_ns: camera name -> stamp of its image.
    """

    image_stamps_ns: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FramePair:
    """One frame of every camera, taken within the allowed skew.

    Attributes:
        frames: camera name -> frame.
        stamp_ns: stamp of the oldest frame.
    """

    frames: Mapping[str, Frame]
    stamp_ns: int

    def observation(
        self, *, proprio: NDArray[np.float64], instruction: str, epoch: int
    ) -> StampedObservation:
        """Make the observation of this moment."""
        return StampedObservation(
            images={name: frame.image for name, frame in self.frames.items()},
            proprio=proprio,
            instruction=instruction,
            stamp_ns=self.stamp_ns,
            epoch=epoch,
            image_stamps_ns={name: frame.stamp_ns for name, frame in self.frames.items()},
        )


class FramePairing:
    """Match each new frame with the nearest frame of every other camera.

    A few frames per camera are remembered, so that a camera whose images travel slower still finds
    its partner. Not thread safe: one caller.

    Args:
        cameras: camera names, one or more.
        max_skew_ns: largest difference of the stamps within a pair.
    """

    def __init__(self, cameras: Sequence[str], *, max_skew_ns: int) -> None:
        self.max_skew_ns = max_skew_ns
        self.unpaired = 0
        self._frames: dict[str, deque[Frame]] = {name: deque(maxlen=_HISTORY) for name in cameras}
        self._newest_ns: int | None = None

    def add(self, camera: str, frame: Frame) -> FramePair | None:
        """Take a frame in.

        Returns:
            The pair it completes, if that is newer than every pair returned before; else None.
        """
        self._frames[camera].append(frame)
        frames = {name: _nearest(history, frame.stamp_ns) for name, history in self._frames.items()}
        found = {name: match for name, match in frames.items() if match is not None}
        if len(found) < len(frames):
            return None
        stamps = [match.stamp_ns for match in found.values()]
        if max(stamps) - min(stamps) > self.max_skew_ns:
            self.unpaired += 1
            return None
        if self._newest_ns is not None and min(stamps) <= self._newest_ns:
            return None
        self._newest_ns = min(stamps)
        return FramePair(frames=found, stamp_ns=self._newest_ns)

    def forget(self, camera: str) -> None:
        """Drop the frames of one camera, so that none of them is used any more."""
        self._frames[camera].clear()

    def clear(self) -> None:
        """Forget every frame and which pair was the newest."""
        for history in self._frames.values():
            history.clear()
        self._newest_ns = None


def _nearest(history: deque[Frame], stamp_ns: int) -> Frame | None:
    return min(history, key=lambda frame: abs(frame.stamp_ns - stamp_ns), default=None)
