"""Messages into arrays: every encoding, padding, and what is refused."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from geometry_msgs.msg import Point, Pose, Quaternion
from sensor_msgs.msg import CompressedImage, Image, JointState
from std_msgs.msg import Float64MultiArray

from lightvla_ros.core.errors import ObservationError
from lightvla_ros.nodes.conversions import (
    gripper_from_joint_state,
    image_from_compressed,
    image_from_message,
    proprio_from_array,
    proprio_from_pose,
    stamp_ns,
)

RGB = np.random.default_rng(0).integers(0, 256, (4, 5, 3), dtype=np.uint8)
ALPHA = np.full((4, 5, 1), 77, np.uint8)


def message(pixels: np.ndarray, encoding: str, padding: int = 0) -> Image:
    height, width = pixels.shape[:2]
    rows = pixels.reshape(height, -1)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=255)
    result = Image(height=height, width=width, encoding=encoding, step=rows.shape[1])
    result.data.frombytes(rows.tobytes())
    return result


@pytest.mark.parametrize("padding", [0, 3])
@pytest.mark.parametrize(
    ("encoding", "pixels"),
    [
        ("rgb8", RGB),
        ("bgr8", RGB[..., ::-1]),
        ("rgba8", np.concatenate([RGB, ALPHA], axis=2)),
        ("bgra8", np.concatenate([RGB[..., ::-1], ALPHA], axis=2)),
    ],
)
def test_colour_encodings_give_the_same_rgb_with_and_without_padding(
    encoding: str, pixels: np.ndarray, padding: int
) -> None:
    image = image_from_message(message(pixels, encoding, padding))
    assert image.dtype == np.uint8 and image.flags.c_contiguous
    np.testing.assert_array_equal(image, RGB)


def test_grey_images_give_three_equal_channels() -> None:
    image = image_from_message(message(RGB[..., :1], "mono8", padding=1))
    np.testing.assert_array_equal(image, np.repeat(RGB[..., :1], 3, axis=2))


def test_plain_rgb_is_a_view_of_the_message() -> None:
    source = message(RGB, "rgb8")
    assert np.shares_memory(image_from_message(source), np.frombuffer(source.data, np.uint8))


@pytest.mark.parametrize(
    ("field", "value"), [("height", 5), ("height", 0), ("width", 6), ("width", 0), ("step", 14), ("step", 16)]
)
def test_sizes_that_disagree_are_refused(field: str, value: int) -> None:
    source = message(RGB, "rgb8")
    setattr(source, field, value)
    with pytest.raises(ObservationError, match=r"rgb8 image; got .*60 bytes; expected .* bytes\. Fix: mend"):
        image_from_message(source)


@pytest.mark.parametrize("encoding", ["", "no_such_encoding"])
def test_an_unknown_encoding_is_refused_with_those_that_are_known(encoding: str) -> None:
    with pytest.raises(ObservationError, match=f"image encoding; got '{encoding}'.*rgb8, bgr8, rgba8"):
        image_from_message(message(RGB, encoding))


def test_a_png_message_is_decoded_to_rgb() -> None:
    _, encoded = cv2.imencode(".png", RGB[..., ::-1])
    source = CompressedImage(format="png")
    source.data.frombytes(encoded.tobytes())
    np.testing.assert_array_equal(image_from_compressed(source), RGB)


@pytest.mark.parametrize("data", [b"", b"no image"])
def test_data_that_does_not_decode_is_refused(data: bytes) -> None:
    source = CompressedImage(format="jpeg")
    source.data.frombytes(data)
    with pytest.raises(ObservationError, match="that do not decode"):
        image_from_compressed(source)


def test_gripper_joints_are_found_by_name_and_scaled() -> None:
    state = JointState(name=["b", "arm", "a"], position=[0.02, 9.0, 0.01])
    gripper = gripper_from_joint_state(state, ("a", "b"), (1.0, -1.0))
    assert gripper is not None and gripper.tolist() == [0.01, -0.02]


def test_joint_states_of_other_joints_are_not_the_grippers() -> None:
    assert gripper_from_joint_state(JointState(name=["arm"], position=[1.0]), ("a", "b"), (1.0, 1.0)) is None


@pytest.mark.parametrize(
    "state",
    [
        JointState(name=["a"], position=[0.1]),
        JointState(name=["a", "b"], position=[0.1]),
        JointState(name=["a", "b"], position=[0.1, math.nan]),
    ],
)
def test_half_a_gripper_is_refused(state: JointState) -> None:
    with pytest.raises(ObservationError, match="gripper in the joint states"):
        gripper_from_joint_state(state, ("a", "b"), (1.0, 1.0))


def pose(x: float, y: float, z: float, w: float, position: float = 0.0) -> Pose:
    return Pose(position=Point(x=position, y=2.0, z=3.0), orientation=Quaternion(x=x, y=y, z=z, w=w))


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_both_signs_of_a_quaternion_give_one_state(sign: float) -> None:
    # A quarter turn about y; q and -q are the same rotation.
    half = math.sqrt(0.5)
    state = proprio_from_pose(pose(0.0, sign * half, 0.0, sign * half, 1.0), np.array([0.04, -0.04]))
    np.testing.assert_allclose(state, [1.0, 2.0, 3.0, 0.0, math.pi / 2, 0.0, 0.04, -0.04], atol=1e-12)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (pose(0.0, 0.0, 0.0, 1.0, math.nan), "position"),
        (pose(0.0, 0.0, math.inf, 1.0), "orientation"),
        (pose(0.0, 0.0, 0.0, 0.0), "a quaternion of length 0"),
    ],
)
def test_a_pose_that_is_none_is_refused(bad: Pose, reason: str) -> None:
    with pytest.raises(ObservationError, match=reason):
        proprio_from_pose(bad, np.zeros(2))


def test_the_whole_state_may_come_in_one_message() -> None:
    assert proprio_from_array(Float64MultiArray(data=[1.0, 2.0]), 2).tolist() == [1.0, 2.0]
    with pytest.raises(ObservationError, match="got 2 numbers; expected 8"):
        proprio_from_array(Float64MultiArray(data=[1.0, 2.0]), 8)
    with pytest.raises(ObservationError, match="expected finite numbers"):
        proprio_from_array(Float64MultiArray(data=[1.0, math.nan]), 2)


def test_stamps_are_exact_nanoseconds() -> None:
    source = Image()
    source.header.stamp.sec, source.header.stamp.nanosec = 1_795_449_993, 1
    assert stamp_ns(source.header.stamp) == 1_795_449_993_000_000_001
