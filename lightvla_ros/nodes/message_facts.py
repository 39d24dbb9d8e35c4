"""What the policy node would make of a message that arrived somewhere else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from geometry_msgs.msg import PoseStamped
from numpy import zeros
from rclpy.serialization import deserialize_message
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, Image, JointState
from std_msgs.msg import Float64MultiArray, String

from lightvla_ros.core.errors import ObservationError
from lightvla_ros.nodes import conversions

KINDS: dict[str, type[Any]] = {
    "geometry_msgs/msg/PoseStamped": PoseStamped,
    "rosgraph_msgs/msg/Clock": Clock,
    "sensor_msgs/msg/CompressedImage": CompressedImage,
    "sensor_msgs/msg/Image": Image,
    "sensor_msgs/msg/JointState": JointState,
    "std_msgs/msg/Float64MultiArray": Float64MultiArray,
    "std_msgs/msg/String": String,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """One message.

    Attributes:
        stamp_ns: None where its type has none; of a Clock, the time it tells.
        content: what it is in a few words.
        problem: why the node would refuse it, and what to do; "" when it would not.
        joint_names: of a JointState.
    """

    stamp_ns: int | None = None
    content: str = ""
    problem: str = ""
    joint_names: tuple[str, ...] = ()


def facts_of(data: bytes, kind: type[Any]) -> Facts:
    """Look at a message as it was sent; never raises.

    Args:
        data: the message in CDR.
        kind: one of `KINDS`.
    """
    try:
        message = deserialize_message(data, kind)
        content, problem = _look_at(message)
    except Exception as error:  # noqa: BLE001  # whatever anybody may publish
        return Facts(problem=f"a message that cannot be read ({error}). Fix: check the driver")
    time = message.clock if kind is Clock else message.header.stamp if hasattr(message, "header") else None
    return Facts(
        stamp_ns=None if time is None else conversions.stamp_ns(time),
        content=content,
        problem=problem,
        joint_names=tuple(message.name) if kind is JointState else (),
    )


def _look_at(message: Any) -> tuple[str, str]:
    """Return what a message is, and why the node would refuse it."""
    content = ""
    try:
        if isinstance(message, Image):
            content = f"{message.width}x{message.height} {message.encoding}"
            conversions.image_from_message(message)
        elif isinstance(message, CompressedImage):
            content = message.format
            height, width, _ = conversions.image_from_compressed(message).shape
            content = f"{width}x{height} {message.format}"
        elif isinstance(message, PoseStamped):
            content = f"in frame {message.header.frame_id!r}"
            conversions.proprio_from_pose(message.pose, zeros(0))
        elif isinstance(message, JointState):
            content = f"{len(message.name)} joints"
        elif isinstance(message, Float64MultiArray):
            content = f"{len(message.data)} numbers"
            conversions.proprio_from_array(message, len(message.data))
        elif isinstance(message, String):
            content = str(message.data)
    except ObservationError as error:
        return content, str(error)
    return content, ""
