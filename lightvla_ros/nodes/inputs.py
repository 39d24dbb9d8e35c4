"""Subscriptions: each callback converts its message, hands it on and returns; none raises."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from geometry_msgs.msg import PoseStamped
from numpy.typing import NDArray
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, Image, JointState
from std_msgs.msg import Bool, Float64MultiArray, String

from lightvla_ros.core.config import NodeConfig
from lightvla_ros.core.control_loop import ControlLoop
from lightvla_ros.core.errors import InstructionError, ObservationError
from lightvla_ros.core.frame_pairing import Frame, StampedObservation
from lightvla_ros.core.input_config import CameraConfig
from lightvla_ros.core.policy import PolicySpec
from lightvla_ros.core.sensor_inputs import STATE
from lightvla_ros.nodes import conversions, qos
from lightvla_ros.nodes.entities import Entities
from lightvla_ros.nodes.matched_subscription import MatchedSubscription
from lightvla_ros.nodes.qos import MatchedQos

# Joints of somebody else that an explanation names: enough to know whose they are.
_NAMED_JOINTS = 10


class Inputs:
    """Cameras, robot state and instruction.

    Args:
        node: gives clock and logger.
        entities: owns the subscriptions.
        config: which topics and message types.
        spec: cameras and length of the state vector.
        loop: takes what arrives.
        submit: takes an observation to infer from.
        report: takes an unexpected exception; motion must stop.
    """

    def __init__(
        self,
        node: Node,
        entities: Entities,
        *,
        config: NodeConfig,
        spec: PolicySpec,
        loop: ControlLoop,
        submit: Callable[[StampedObservation], None],
        report: Callable[[Exception], None],
    ) -> None:
        self._node = node
        self._entities = entities
        self._proprio_config = config.proprio
        self._proprio_dim = spec.proprio_dim
        self._loop = loop
        self._submit = submit
        self._report = report
        self._gripper: tuple[int, NDArray[np.float64]] | None = None
        self._other_joints: Sequence[str] = ()
        self._pose: PoseStamped | None = None
        self._matched: list[MatchedSubscription] = []
        self.camera_topics: dict[str, str] = {}
        self.state_topics: list[str] = []
        # Waiting messages are taken in this order: state before images, so that both are of one moment.
        self._subscribe(Bool, "estop", self._on_estop, qos.ESTOP)
        self._subscribe(String, "instruction", self._on_instruction, qos.INSTRUCTION)
        self._subscribe_state()
        for camera in spec.camera_names:
            self._subscribe_camera(camera, config.camera)

    def watch(self) -> None:
        """Ask for the quality of service that publishers offer; called a few times per second."""
        for subscription in self._matched:
            subscription.match()

    def explain_missing_state(self) -> str:
        """Say what keeps joint states that do arrive from being the gripper's; empty when nothing does."""
        if self._gripper is not None or not self._other_joints:
            return ""
        names = ", ".join(self._other_joints[:_NAMED_JOINTS])
        return (
            f"the newest message on {self.state_topics[0]} has joints {names}; expected "
            f"{', '.join(self._proprio_config.gripper_joints)}. "
            "Fix: set proprio.gripper_joints to your gripper's joint names"
        )

    def _subscribe(
        self, kind: type[Any], topic: str, callback: Callable[[Any], None], wanted: MatchedQos
    ) -> str:
        subscription = MatchedSubscription(
            self._node, self._entities, kind=kind, topic=topic, callback=callback, qos=wanted
        )
        self._matched.append(subscription)
        return subscription.topic

    def _subscribe_state(self) -> None:
        if self._proprio_config.source == "proprio":
            topics = [(Float64MultiArray, "robot/proprio", self._on_proprio)]
        else:
            topics = [
                (JointState, "joint_states", self._on_joint_state),
                (PoseStamped, "robot/eef_pose", self._on_pose),
            ]
        self.state_topics = [
            str(self._entities.subscription(*topic, qos.ROBOT_STATE).topic_name) for topic in topics
        ]

    def _subscribe_camera(self, camera: str, config: CameraConfig) -> None:
        compressed = config.transport == "compressed"
        is_upside_down = camera in config.upside_down_names
        kind = CompressedImage if compressed else Image
        topic = f"camera/{camera}/image" + ("/compressed" if compressed else "")
        convert = conversions.image_from_compressed if compressed else conversions.image_from_message

        def image_of(message: Any) -> NDArray[np.uint8]:
            image = convert(message)
            return conversions.turned(image) if is_upside_down else image

        def callback(message: Any) -> None:
            self._on_image(camera, message, image_of)

        self.camera_topics[camera] = self._subscribe(kind, topic, callback, qos.CAMERA[config.reliability])

    def _on_image(self, camera: str, message: Any, image_of: Callable[[Any], NDArray[np.uint8]]) -> None:
        if not self._loop.active:
            return
        with self._refusing(camera):
            frame = Frame(image=image_of(message), stamp_ns=conversions.stamp_ns(message.header.stamp))
            observation = self._loop.add_frame(camera, frame, self._now_ns())
            if observation is not None:
                self._submit(observation)

    def _on_joint_state(self, message: JointState) -> None:
        with self._refusing(STATE):
            names, scales = self._proprio_config.gripper_joints, self._proprio_config.gripper_scales
            gripper = conversions.gripper_from_joint_state(message, names, scales)
            if gripper is None:
                self._other_joints = message.name
            else:
                self._gripper = (conversions.stamp_ns(message.header.stamp), gripper)
                self._join_state()

    def _on_pose(self, message: PoseStamped) -> None:
        with self._refusing(STATE):
            self._pose = message
            self._join_state()

    def _join_state(self) -> None:
        if self._pose is None or self._gripper is None:
            return
        gripper_stamp_ns, gripper = self._gripper
        proprio = conversions.proprio_from_pose(self._pose.pose, gripper)
        stamp_ns = min(gripper_stamp_ns, conversions.stamp_ns(self._pose.header.stamp))
        self._loop.add_proprio(proprio, stamp_ns, self._now_ns())

    def _on_proprio(self, message: Float64MultiArray) -> None:
        with self._refusing(STATE):
            proprio = conversions.proprio_from_array(message, self._proprio_dim)
            # The message has no stamp of its own.
            now_ns = self._now_ns()
            self._loop.add_proprio(proprio, now_ns, now_ns)

    def _on_estop(self, message: Bool) -> None:
        # Latched: a button that is released must not set the arm in motion again.
        if message.data:
            self._loop.block("estop", "emergency stop was requested; call ~/reset once it is safe")

    def _on_instruction(self, message: String) -> None:
        logger = self._node.get_logger()
        try:
            before = self._loop.epoch
            self._loop.instruct(message.data, self._now_ns())
            if self._loop.epoch != before:
                logger.info(f"instruction {self._loop.instruction!r}, epoch {self._loop.epoch}")
        except InstructionError as error:
            logger.error(f"instruction refused, the robot stays stopped: {error}")
        except Exception as error:  # noqa: BLE001  # a callback's exception would end the executor
            self._report(error)

    @contextmanager
    def _refusing(self, name: str) -> Iterator[None]:
        try:
            yield
        except ObservationError as error:
            self._loop.refuse(name, str(error))
            if name == STATE:
                # A good half must not be joined with what came before the bad one.
                self._pose = self._gripper = None
        except Exception as error:  # noqa: BLE001  # a callback's exception would end the executor
            self._report(error)

    def _now_ns(self) -> int:
        return int(self._node.get_clock().now().nanoseconds)
