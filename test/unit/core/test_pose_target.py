"""Deltas become targets once per step; holding stands still."""

from __future__ import annotations

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from lightvla_ros.core.pose_target import PoseTarget
from lightvla_ros.core.rotation import (
    multiply_quaternions,
    rotation_vector_to_matrix,
    rotation_vector_to_quaternion,
)

DOWN = np.array([0.1, 0.2, 0.3, np.pi, 0.0, 0.0])  # a gripper that points straight down
vectors = st.lists(st.floats(-2.0, 2.0), min_size=3, max_size=3).map(np.array)


def matrix(quaternion: np.ndarray) -> np.ndarray:
    x, y, z, w = quaternion
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


@given(vectors, vectors)
@example(np.zeros(3), np.array([0.0, 0.0, 5e-11]))
def test_quaternions_compose_as_matrices_do(first: np.ndarray, second: np.ndarray) -> None:
    product = multiply_quaternions(
        rotation_vector_to_quaternion(second), rotation_vector_to_quaternion(first)
    )
    expected = rotation_vector_to_matrix(second) @ rotation_vector_to_matrix(first)
    np.testing.assert_allclose(matrix(product), expected, atol=1e-12)


def test_the_delta_is_added_to_the_measured_pose_in_the_base_frame() -> None:
    delta = np.array([0.05, 0.0, -0.02, 0.0, 0.0, 0.1])
    pose = PoseTarget().move(delta, DOWN, step_ns=5)
    np.testing.assert_allclose(pose.position, [0.15, 0.2, 0.28])
    expected = rotation_vector_to_matrix(delta[3:]) @ rotation_vector_to_matrix(DOWN[3:])
    np.testing.assert_allclose(matrix(pose.quaternion), expected, atol=1e-12)


def test_within_a_step_the_target_stays_whatever_the_arm_does() -> None:
    target, delta = PoseTarget(), np.array([0.05, 0, 0, 0, 0, 0])
    first = target.move(delta, DOWN, step_ns=5)
    again = target.move(delta, DOWN + 0.04, step_ns=5)
    np.testing.assert_array_equal(again.position, first.position)
    following = target.move(delta, DOWN + 0.04, step_ns=6)
    np.testing.assert_allclose(following.position, [0.19, 0.24, 0.34])


def test_holding_means_the_pose_at_which_it_began() -> None:
    target = PoseTarget()
    target.move(np.array([0.05, 0, 0, 0, 0, 0]), DOWN, step_ns=5)
    held = target.hold(DOWN)
    np.testing.assert_array_equal(held.position, DOWN[:3])
    np.testing.assert_array_equal(target.hold(DOWN + 0.1).position, DOWN[:3])


def test_holding_before_any_motion_means_where_the_arm_is() -> None:
    np.testing.assert_array_equal(PoseTarget().hold(DOWN).position, DOWN[:3])


def test_a_held_target_is_left_when_motion_goes_on() -> None:
    target, delta = PoseTarget(), np.array([0.05, 0, 0, 0, 0, 0])
    target.move(delta, DOWN, step_ns=5)
    target.hold(DOWN)
    pose = target.move(delta, DOWN, step_ns=5)
    np.testing.assert_allclose(pose.position, [0.15, 0.2, 0.3])
