"""Messages that come in, turned into arrays; pure functions, no copies where the layout allows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib import metadata
from typing import Any

import cv2
import numpy as np
from geometry_msgs.msg import Pose
from numpy.typing import NDArray
from sensor_msgs.msg import CompressedImage, Image, JointState
from std_msgs.msg import Float64MultiArray

from lightvla_ros.core.errors import ObservationError
from lightvla_ros.core.rotation import quaternion_to_axis_angle

# encoding -> (channels, OpenCV conversion to RGB)
_ENCODINGS: dict[str, tuple[int, int | None]] = {
    "rgb8": (3, None),
    "bgr8": (3, cv2.COLOR_BGR2RGB),
    "rgba8": (4, cv2.COLOR_RGBA2RGB),
    "bgra8": (4, cv2.COLOR_BGRA2RGB),
    "mono8": (1, cv2.COLOR_GRAY2RGB),
}
_UNIT_QUATERNION_TOLERANCE = 0.1


def stamp_ns(stamp: Any) -> int:
    """Nanoseconds of a builtin_interfaces/Time or Duration."""
    return int(stamp.sec) * 1_000_000_000 + int(stamp.nanosec)


def image_from_message(message: Image) -> NDArray[np.uint8]:
    """Turn an image message into uint8 [H, W, 3], RGB.

    rgb8 without padding is a view of the message; the message must then stay unchanged.

    Raises:
        ObservationError: the encoding is unknown here and to cv_bridge, or size, step and data disagree.
    """
    layout = _ENCODINGS.get(message.encoding)
    if layout is None:
        return _image_from_cv_bridge(message)
    channels, conversion = layout
    pixels = _pixels(message, channels)
    if conversion is None:
        return np.ascontiguousarray(pixels)
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(pixels), conversion), dtype=np.uint8)


def _pixels(message: Image, channels: int) -> NDArray[np.uint8]:
    height, width, step = message.height, message.width, message.step
    data = np.frombuffer(message.data, dtype=np.uint8)
    if height < 1 or width < 1 or step < width * channels or data.size != height * step:
        raise ObservationError(
            f"{message.encoding} image",
            got=f"{width}x{height} pixels, step {step}, {data.size} bytes",
            expected=f"a size above zero, a step of at least {width * channels} and {height * step} bytes",
            fix="mend the camera driver: width, height, step and data must agree",
        )
    rows = data.reshape(height, step)[:, : width * channels]
    return rows.reshape(height, width, channels)


def _image_from_cv_bridge(message: Image) -> NDArray[np.uint8]:
    bridge = _cv_bridge()
    expected = f"one of {', '.join(_ENCODINGS)}, or what ROS 2's cv_bridge turns into rgb8"
    if bridge is None:
        raise ObservationError(
            "image encoding",
            got=repr(message.encoding),
            expected=expected,
            fix="set the camera to rgb8, or install ros-<distro>-cv-bridge",
        )
    try:
        image = bridge.imgmsg_to_cv2(message, desired_encoding="rgb8")
    except Exception as error:  # cv_bridge raises its own, OpenCV's and Python's errors alike
        raise ObservationError(
            "image encoding", got=f"{message.encoding!r} ({error})", expected=expected, fix="use rgb8"
        ) from error
    return np.ascontiguousarray(image, dtype=np.uint8)


def _cv_bridge() -> Any:
    try:
        from cv_bridge import CvBridge
    except Exception:  # noqa: BLE001  # a broken build raises more than ImportError; either way there is none
        return None
    try:
        version = metadata.version("cv-bridge")
    except metadata.PackageNotFoundError:
        return CvBridge()
    # Version 1 is ROS 1's, as found on PyPI: it misreads 16-bit images.
    return None if version.startswith("1.") else CvBridge()


def image_from_compressed(message: CompressedImage) -> NDArray[np.uint8]:
    """Decode a JPEG or PNG message into uint8 [H, W, 3], RGB.

    Raises:
        ObservationError: the data is no image.
    """
    data = np.frombuffer(message.data, dtype=np.uint8)
    image = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    if image is None:
        raise ObservationError(
            "compressed image",
            got=f"{data.size} bytes of format {message.format!r} that do not decode",
            expected="a JPEG or PNG image",
            fix="check the camera's compressed transport",
        )
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def turned(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Turn uint8 [H, W, 3] by 180 degrees, into a new array."""
    return np.ascontiguousarray(image[::-1, ::-1])


def gripper_from_joint_state(
    message: JointState, joints: Sequence[str], scales: Sequence[float]
) -> NDArray[np.float64] | None:
    """Pick the gripper's joints by name and scale them.

    Returns:
        float64 [len(joints)], m; None when the message is about other joints.

    Raises:
        ObservationError: only some of the joints are there, or a position is missing or not finite.
    """
    found = {name: index for index, name in enumerate(message.name) if name in joints}
    if not found and joints:
        return None
    try:
        positions = [message.position[found[name]] for name in joints]
    except (KeyError, IndexError) as error:
        raise ObservationError(
            "gripper in the joint states",
            got=f"names {list(message.name)} with {len(message.position)} positions",
            expected=f"a position for each of {list(joints)}",
            fix="set proprio.gripper_joints to your gripper's joint names",
        ) from error
    return _finite("gripper in the joint states", positions) * np.array(scales, dtype=np.float64)


def proprio_from_pose(pose: Pose, gripper: NDArray[np.float64]) -> NDArray[np.float64]:
    """Make LIBERO's state vector: position m, axis-angle rad, gripper positions m.

    Args:
        pose: of the end effector in the robot's base or world frame; quaternion x, y, z, w.
        gripper: float64 [G].

    Returns:
        float64 [6 + G].

    Raises:
        ObservationError: a value is not finite, or the quaternion is not of unit length.
    """
    orientation = pose.orientation
    position = _finite("end-effector position", [pose.position.x, pose.position.y, pose.position.z])
    quaternion = _finite(
        "end-effector orientation", [orientation.x, orientation.y, orientation.z, orientation.w]
    )
    length = math.sqrt(float(quaternion @ quaternion))
    if abs(length - 1.0) > _UNIT_QUATERNION_TOLERANCE:
        raise ObservationError(
            "end-effector orientation",
            got=f"a quaternion of length {length:g}",
            expected="unit length",
            fix="fill in pose.orientation (x, y, z, w)",
        )
    return np.concatenate([position, quaternion_to_axis_angle(quaternion / length), gripper])


def proprio_from_array(message: Float64MultiArray, proprio_dim: int) -> NDArray[np.float64]:
    """Take the whole state vector from one message.

    Raises:
        ObservationError: another length than the policy's, or a value that is not finite.
    """
    proprio = _finite("robot state", message.data)
    if proprio.shape != (proprio_dim,):
        raise ObservationError(
            "robot state",
            got=f"{proprio.size} numbers",
            expected=f"{proprio_dim}, as the policy was trained with",
            fix="mend the publisher, or set proprio.source to eef_pose",
        )
    return proprio


def _finite(what: str, values: Sequence[float]) -> NDArray[np.float64]:
    array = np.array(values, dtype=np.float64)
    if not np.isfinite(array).all():
        raise ObservationError(
            what, got=array.tolist(), expected="finite numbers", fix="check the driver that publishes it"
        )
    return array
