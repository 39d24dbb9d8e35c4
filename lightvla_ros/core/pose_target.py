"""Where an end-effector delta leads: a target pose, set once per step from the measured pose."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lightvla_ros.core.rotation import multiply_quaternions, rotation_vector_to_quaternion


class Pose(NamedTuple):
    """Position [3], m, and unit quaternion [4], x, y, z, w."""

    position: NDArray[np.float64]
    quaternion: NDArray[np.float64]


class PoseTarget:
    """The pose a position controller shall go to.

    A step's delta is added to the pose measured when the step begins, as LIBERO's controller does, and
    only then: a target repeated at a higher rate does not run away, and a missed step is not made up for.
    """

    def __init__(self) -> None:
        self._step_ns: int | None = None
        self._pose: Pose | None = None

    def move(self, delta: NDArray[np.float64], measured: NDArray[np.float64], step_ns: int) -> Pose:
        """Return the target while a step is due.

        Args:
            delta: [6], translation m and rotation vector rad, both in the base frame.
            measured: [>= 6], the end effector's position m and rotation vector rad.
            step_ns: when the step began; another one sets a new target.
        """
        if self._pose is None or step_ns != self._step_ns:
            turn, now = (rotation_vector_to_quaternion(v) for v in (delta[3:6], measured[3:6]))
            self._step_ns = step_ns
            self._pose = Pose(measured[:3] + delta[:3], multiply_quaternions(turn, now))
        return self._pose

    def hold(self, measured: NDArray[np.float64]) -> Pose:
        """Return the target that stands still: where the arm was when it was first told to."""
        if self._pose is None or self._step_ns is not None:
            self._step_ns = None
            self._pose = Pose(measured[:3].copy(), rotation_vector_to_quaternion(measured[3:6]))
        return self._pose
