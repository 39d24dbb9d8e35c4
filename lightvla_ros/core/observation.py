"""What goes into a policy and what comes out: `Observation` and `ActionChunk`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Observation:
    """One moment of the robot as the policy sees it.

    Attributes:
        images: camera name -> uint8 [H, W, 3], RGB, any size; one entry per camera of the policy.
        proprio: float64 [P], robot units (LIBERO: eef position m, eef axis-angle rad, finger positions m).
        instruction: the user's text, as given.
        stamp_ns: time of the older image, nanoseconds of the clock the images were stamped with.
        epoch: counts instructions; a chunk of an older epoch is never executed.
    """

    images: Mapping[str, NDArray[np.uint8]]
    proprio: NDArray[np.float64]
    instruction: str
    stamp_ns: int
    epoch: int = 0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ActionChunk:
    """The actions a policy wants executed, step i due at `stamp_ns + i * step_period_ns`.

    Attributes:
        actions: float32 [chunk_size, action_dim], robot units (LIBERO: end-effector deltas in
            controller units [-1, 1], gripper -1 open / +1 close).
        stamp_ns: stamp of the observation the chunk answers.
        step_period_ns: time between two steps.
        keep_masks: camera name -> bool [rows, columns]; True where the visual token was retained.
        timings_ms: stage name -> milliseconds (preprocess, vision, pruner, decoder, post).
        instruction: the instruction the chunk acts on.
        epoch: epoch of the observation.
    """

    actions: NDArray[np.float32]
    stamp_ns: int
    step_period_ns: int
    keep_masks: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)
    timings_ms: Mapping[str, float] = field(default_factory=dict)
    instruction: str = ""
    epoch: int = 0

    @property
    def num_retained(self) -> int:
        """Number of visual tokens retained over all cameras."""
        return int(sum(int(mask.sum()) for mask in self.keep_masks.values()))
