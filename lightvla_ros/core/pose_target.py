"""Where an end-effector delta leads: a target pose, set once per step from the measured pose."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lightvla_ros.core.rotation import multiply_quaternions, rotation_vector_to_quaternion


class Pose(NamedTuple):
    """Position [3], m, and unit quaternion [4], x, y, z, w."""

    position: NDArray[np.float64]
    quaternion: NDArray[np.float64]


class PoseTarget:
    """The pose a position controller shall go to.

    A step's delta is added to the pose measured when the step begins, as LIBERO's controller does, and
    only then: a target repeated at a higher rate does not run away, and a missed step is not made up for.

    Args:
        workspace_min: [3], m; the target's position never leaves the box.
        workspace_max: [3], m.
    """

    def __init__(self, workspace_min: ArrayLike, workspace_max: ArrayLike) -> None:
        self._low, self._high = np.asarray(workspace_min), np.asarray(workspace_max)
        self._step_ns: int | None = None
        self._pose: Pose | None = None

    def move(
        self, delta: NDArray[np.float64], measured: NDArray[np.float64], step_ns: int
    ) -> tuple[Pose, bool]:
        """Return the target while a step is due.

        Args:
            delta: [6], translation m and rotation vector rad, both in the base frame.
            measured: [>= 6], the end effector's position m and rotation vector rad.
            step_ns: when the step began; another one sets a new target.

        Returns:
            the target, and whether the workspace cut it short.
        """
        if self._pose is not None and step_ns == self._step_ns:
            return self._pose, False
        wanted = measured[:3] + delta[:3]
        position = np.clip(wanted, self._low, self._high)
        turn, now = (rotation_vector_to_quaternion(v) for v in (delta[3:6], measured[3:6]))
        self._step_ns, self._pose = step_ns, Pose(position, multiply_quaternions(turn, now))
        return self._pose, bool((position != wanted).any())

    def hold(self, measured: NDArray[np.float64]) -> Pose:
        """Return the target that stands still: where the arm was when it was first told to."""
        if self._pose is None or self._step_ns is not None:
            self._step_ns = None
            self._pose = Pose(measured[:3].copy(), rotation_vector_to_quaternion(measured[3:6]))
        return self._pose
