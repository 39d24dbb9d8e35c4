"""Rotations as the policy's state vector and the simulated worlds use them."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

_SMALLEST_SINE = 1e-8
# x^2 + y^2 of a frame whose z axis is 96 degrees away from up: a little below the horizontal, where an arm
# that works with an upright frame may end.
_POINTS_DOWN = 0.55


def quaternion_to_axis_angle(quaternion: ArrayLike) -> NDArray[np.float64]:
    """Turn a unit quaternion into rotation axis times angle, the same for q and -q.

    The sign is fixed by x where the frame's z axis points down, by w elsewhere; if that is zero, by y or z.
    A gripper that points straight down is at (1, 0, 0, 0), where the usual rule (w >= 0) would flip the
    vector at every tremor; with x it turns by almost half a turn and tilts by 80 degrees without a jump, as
    in LIBERO, whose quaternions are continuous.

    Args:
        quaternion: [4], x, y, z, w, unit length.

    Returns:
        float64 [3], rad, 2 acos(w) (x, y, z) / sqrt(1 - w^2); zeros for the identity.

    Source: LIBERO's state vector (spec §8).
    """
    q = np.asarray(quaternion, dtype=np.float64)
    first, second = (q[0], q[1]) if q[0] ** 2 + q[1] ** 2 > _POINTS_DOWN else (q[3], q[2])
    q = q * np.sign(first if abs(first) > _SMALLEST_SINE else second)
    w = float(np.clip(q[3], -1.0, 1.0))
    sine = np.sqrt(1.0 - w * w)
    if sine < _SMALLEST_SINE:
        return np.zeros(3)
    return np.asarray(2.0 * np.arccos(w) / sine * q[:3])


def matrix_to_rotation_vector(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Turn a rotation matrix [3, 3] of less than half a turn into axis times angle, rad."""
    skew = np.array([matrix[2, 1] - matrix[1, 2], matrix[0, 2] - matrix[2, 0], matrix[1, 0] - matrix[0, 1]])
    sine = np.linalg.norm(skew) / 2.0
    if sine < _SMALLEST_SINE:
        return np.zeros(3)
    angle = np.arctan2(sine, (np.trace(matrix) - 1.0) / 2.0)
    return np.asarray(skew / (2.0 * sine) * angle)


def rotation_vector_to_matrix(vector: ArrayLike) -> NDArray[np.float64]:
    """Turn axis times angle [3], rad, into a rotation matrix [3, 3] (Rodrigues)."""
    x, y, z = v = np.asarray(vector, dtype=np.float64)
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    angle = float(np.linalg.norm(v))
    if angle < _SMALLEST_SINE:
        return np.asarray(np.eye(3) + cross)
    cross /= angle
    return np.asarray(np.eye(3) + np.sin(angle) * cross + (1.0 - np.cos(angle)) * cross @ cross)


def rotation_vector_to_quaternion(vector: ArrayLike) -> NDArray[np.float64]:
    """Turn axis times angle [3], rad, any angle, into a unit quaternion [4], x, y, z, w."""
    v = np.asarray(vector, dtype=np.float64)
    angle = float(np.linalg.norm(v))
    # sin(a / 2) / a, whose limit at zero is a half.
    scale = 0.5 if angle < _SMALLEST_SINE else np.sin(angle / 2.0) / angle
    return np.append(scale * v, np.cos(angle / 2.0))


def multiply_quaternions(left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compose two rotations, each [4] x, y, z, w: `right` first, then `left`."""
    a, b = left[:3], right[:3]
    vector = left[3] * b + right[3] * a + np.cross(a, b)
    return np.append(vector, left[3] * right[3] - a @ b)
