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


class _Slot:
    """A remembered frame, and whether it was part of a pair."""

    __slots__ = ("frame", "is_paired")

    def __init__(self, frame: Frame) -> None:
        self.frame = frame
        self.is_paired = False


class FramePairing:
    """Match each new frame with the nearest frame of every other camera.

    A few frames per camera are remembered, so that a camera whose images travel slower still finds
    its partner. Not thread safe: one caller.

    Args:
        cameras: camera names, one or more.
        max_skew_ns: largest difference of the stamps within a pair.

    Attributes:
        unpaired: frames that were forgotten without having been part of a pair.
    """

    def __init__(self, cameras: Sequence[str], *, max_skew_ns: int) -> None:
        self.max_skew_ns = max_skew_ns
        self.unpaired = 0
        self._slots: dict[str, deque[_Slot]] = {name: deque(maxlen=_HISTORY) for name in cameras}
        self._newest_ns: int | None = None

    def add(self, camera: str, frame: Frame) -> FramePair | None:
        """Take a frame in.

        Returns:
            The pair it completes, if that is newer than every pair returned before; else None.
        """
        history = self._slots[camera]
        if len(history) == _HISTORY:
            self.unpaired += not history[0].is_paired
        history.append(_Slot(frame))
        found = self._nearest(frame.stamp_ns)
        if len(found) < len(self._slots) or _skew_ns(found) > self.max_skew_ns:
            return None
        oldest_ns = min(slot.frame.stamp_ns for slot in found.values())
        if self._newest_ns is not None and oldest_ns <= self._newest_ns:
            return None
        for slot in found.values():
            slot.is_paired = True
        self._newest_ns = oldest_ns
        return FramePair(frames={name: slot.frame for name, slot in found.items()}, stamp_ns=oldest_ns)

    def nearest_skew_ns(self) -> int | None:
        """How near the frames remembered come to each other; None while a camera has none."""
        first = next(iter(self._slots.values()))
        matches = [self._nearest(slot.frame.stamp_ns) for slot in first if not slot.is_paired]
        return min((_skew_ns(found) for found in matches if len(found) == len(self._slots)), default=None)

    def forget(self, camera: str) -> None:
        """Drop the frames of one camera, so that none of them is used any more."""
        self._slots[camera].clear()

    def clear(self) -> None:
        """Forget every frame and which pair was the newest."""
        for history in self._slots.values():
            history.clear()
        self._newest_ns = None

    def _nearest(self, stamp_ns: int) -> dict[str, _Slot]:
        """The frame of each camera that is nearest to a time; cameras without frames are left out."""
        return {
            name: min(history, key=lambda slot: abs(slot.frame.stamp_ns - stamp_ns))
            for name, history in self._slots.items()
            if history
        }


def _skew_ns(found: Mapping[str, _Slot]) -> int:
    stamps = [slot.frame.stamp_ns for slot in found.values()]
    return max(stamps) - min(stamps)
