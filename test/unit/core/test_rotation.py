from __future__ import annotations

import numpy as np
import pytest

from lightvla_ros.core.rotation import (
    matrix_to_rotation_vector,
    quaternion_to_axis_angle,
    rotation_vector_to_matrix,
)


def test_a_quarter_turn_about_z_is_half_pi_along_z() -> None:
    half = np.sqrt(0.5)
    np.testing.assert_allclose(quaternion_to_axis_angle([0.0, 0.0, half, half]), [0.0, 0.0, np.pi / 2])


def test_the_identity_is_zero() -> None:
    np.testing.assert_array_equal(quaternion_to_axis_angle([0.0, 0.0, 0.0, 1.0]), [0.0, 0.0, 0.0])


def test_a_quaternion_and_its_negative_give_the_same_vector() -> None:
    quaternion = np.array([0.3, -0.5, 0.1, 0.8])
    quaternion /= np.linalg.norm(quaternion)
    np.testing.assert_array_equal(quaternion_to_axis_angle(quaternion), quaternion_to_axis_angle(-quaternion))


@pytest.mark.parametrize("tremor", [1e-3, -1e-3])
def test_a_gripper_pointing_down_does_not_flip_at_a_tremor(tremor: float) -> None:
    quaternion = np.array([np.sqrt(1.0 - tremor**2), 0.0, 0.0, tremor])
    np.testing.assert_allclose(quaternion_to_axis_angle(quaternion), [np.pi - 2.0 * tremor, 0.0, 0.0])


def test_a_gripper_pointing_down_turns_and_tilts_without_a_jump() -> None:
    down = np.diag([1.0, -1.0, -1.0])
    for axis in ([0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.6, 0.0, 0.8]):
        largest = 2.9 if axis[2] == 1.0 else 1.4
        angles = np.linspace(-largest, largest, 400)
        turned = [rotation_vector_to_matrix(np.multiply(axis, angle)) @ down for angle in angles]
        vectors = np.array([quaternion_to_axis_angle(_quaternion(matrix)) for matrix in turned])
        assert np.abs(np.diff(vectors, axis=0)).max() < 0.1


def _quaternion(matrix: np.ndarray) -> np.ndarray:
    vector = matrix_to_rotation_vector(matrix)
    angle = np.linalg.norm(vector)
    if angle < 1e-6 or abs(angle - np.pi) < 1e-6:
        return np.array([1.0, 0.0, 0.0, 0.0])
    return np.append(np.sin(angle / 2) * vector / angle, np.cos(angle / 2))


def test_a_rotation_vector_survives_the_way_through_a_matrix() -> None:
    vector = np.array([0.4, -1.1, 0.7])
    np.testing.assert_allclose(matrix_to_rotation_vector(rotation_vector_to_matrix(vector)), vector)


@pytest.mark.parametrize("axis", [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
def test_an_upright_frame_tilts_beyond_the_horizontal_without_a_jump(axis: list[float]) -> None:
    for tremor in (1e-6, -1e-6):
        vectors = []
        for angle in np.linspace(-1.6, 1.6, 200):
            half = np.append(np.sin(angle / 2) * np.array(axis), np.cos(angle / 2))
            vectors.append(quaternion_to_axis_angle(half + tremor))
        assert np.abs(np.diff(vectors, axis=0)).max() < 0.1
