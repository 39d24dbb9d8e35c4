"""Publish what a `World` measures: both cameras and the robot's state, one stamp for all of a step."""

from __future__ import annotations

from array import array

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import PoseStamped
from numpy.typing import NDArray
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import Float64MultiArray

from lightvla_ros.sim.world import WorldState

WORLD_FRAME = "world"


class WorldPublisher:
    """The topics of a robot with its cameras; messages are made once and written in place.

    Args:
        node: the node that owns the publishers.
        joint_names: arm joints, then finger joints, in the order of `WorldState`.
    """

    def __init__(self, node: Node, *, joint_names: tuple[str, ...]) -> None:
        self._node = node
        self._cameras: dict[str, _Camera] = {}
        self._pose = PoseStamped()
        self._pose.header.frame_id = WORLD_FRAME
        self._joints = JointState(name=list(joint_names), position=[0.0] * len(joint_names))
        self._proprio = Float64MultiArray(data=[0.0] * 8)
        self._pose_publisher = node.create_publisher(PoseStamped, "robot/eef_pose", qos_profile_sensor_data)
        self._joint_publisher = node.create_publisher(JointState, "joint_states", qos_profile_sensor_data)
        self._proprio_publisher = node.create_publisher(
            Float64MultiArray, "robot/proprio", qos_profile_sensor_data
        )

    def publish(self, state: WorldState, stamp: Time) -> None:
        """Publish the robot's state, then the images: who pairs by image finds the state already there."""
        self._pose.header.stamp = stamp
        position, orientation = self._pose.pose.position, self._pose.pose.orientation
        position.x, position.y, position.z = state.eef_position.tolist()
        orientation.x, orientation.y, orientation.z, orientation.w = state.eef_quaternion.tolist()
        self._pose_publisher.publish(self._pose)

        self._joints.header.stamp = stamp
        np.frombuffer(self._joints.position)[:] = [*state.joint_positions, *state.gripper_positions]
        self._joint_publisher.publish(self._joints)

        np.frombuffer(self._proprio.data)[:] = state.proprio
        self._proprio_publisher.publish(self._proprio)

        for name, image in state.images.items():
            self._camera(name).publish(image, stamp)

    def _camera(self, name: str) -> _Camera:
        if name not in self._cameras:
            self._cameras[name] = _Camera(self._node, name)
        return self._cameras[name]


class _Camera:
    """One rgb8 image topic, `/camera/<name>/image`."""

    def __init__(self, node: Node, name: str) -> None:
        self._message = Image(encoding="rgb8")
        self._message.header.frame_id = f"{name}_camera"
        self._publisher = node.create_publisher(Image, f"camera/{name}/image", qos_profile_sensor_data)

    def publish(self, image: NDArray[np.uint8], stamp: Time) -> None:
        height, width, _ = image.shape
        message = self._message
        if (message.height, message.width) != (height, width):
            message.height, message.width, message.step = height, width, 3 * width
            message.data = array("B", bytes(image.size))
        # Assigning an ndarray to `data` copies it item by item, tens of milliseconds per image.
        np.frombuffer(message.data, dtype=np.uint8)[:] = image.reshape(-1)
        message.header.stamp = stamp
        self._publisher.publish(message)
