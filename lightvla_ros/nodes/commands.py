"""The command topic in each of its types; messages are made once and written in place.

An output is told to move or to hold at every tick. What it may do is decided elsewhere.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from geometry_msgs.msg import PoseStamped, TwistStamped
from numpy.typing import NDArray
from rclpy.duration import Duration
from std_msgs.msg import Float64MultiArray, MultiArrayDimension
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from lightvla_ros.core.config import CommandConfig, LimitsConfig
from lightvla_ros.core.errors import ConfigError
from lightvla_ros.core.limits import limit_norm
from lightvla_ros.core.output import Command
from lightvla_ros.core.policy import PolicySpec
from lightvla_ros.core.pose_target import Pose, PoseTarget
from lightvla_ros.nodes import qos
from lightvla_ros.nodes.entities import Entities
from lightvla_ros.nodes.outputs import write_time

_TOPIC = "policy/command"
_FLUSH_TIMEOUT = Duration(seconds=0.5)
_POSE_DIMS = 6
_END_EFFECTOR_DIMS = 7


class CommandOutput(Protocol):
    """One way to command a robot.

    Attributes:
        limits: largest speeds; may be replaced while running.
    """

    limits: LimitsConfig

    def move(self, command: Command, now_ns: int) -> bool:
        """Publish a command that moves; whether a limit changed it."""
        ...

    def hold(self, command: Command, now_ns: int) -> None:
        """Publish what stands still."""
        ...

    def flush(self) -> bool:
        """Wait until every listener has the last command; whether it has within half a second."""
        ...


def make_command_output(
    entities: Entities, *, config: CommandConfig, limits: LimitsConfig, spec: PolicySpec
) -> CommandOutput | None:
    """Make the output that `command.type` names; None for none.

    Raises:
        ConfigError: the policy's actions do not fit it.
    """
    if config.type == "none":
        return None
    check_actions(config, spec)
    kinds: dict[str, Callable[..., CommandOutput]] = {
        "twist": TwistOutput,
        "pose": PoseOutput,
        "forward": ForwardOutput,
        "trajectory": TrajectoryOutput,
    }
    return kinds[config.type](entities, config=config, limits=limits, spec=spec)


def check_actions(config: CommandConfig, spec: PolicySpec) -> None:
    """Check that a policy's actions can be sent as the command type.

    Raises:
        ConfigError: their number does not fit.
    """
    if config.type in ("twist", "pose") and len(spec.action_names) != _END_EFFECTOR_DIMS:
        raise ConfigError(
            f"command.type {config.type}",
            got=f"a policy with actions {list(spec.action_names)}",
            expected="3 translations, 3 rotations and the gripper",
            fix="set command.type to forward or trajectory, or to none and use policy/action_chunk",
        )
    if config.type == "trajectory" and len(config.joint_names) != len(spec.action_names) - 1:
        raise ConfigError(
            "command.joint_names",
            got=f"{len(config.joint_names)} joints",
            expected=f"{len(spec.action_names) - 1}: the actions are {list(spec.action_names)}",
            fix="name one joint per action dimension but the gripper, in the order of the actions",
        )


class _Output:
    """What all outputs share."""

    def __init__(
        self,
        entities: Entities,
        message: Any,
        *,
        config: CommandConfig,
        limits: LimitsConfig,
        spec: PolicySpec,
    ) -> None:
        self.limits = limits
        self._message = message
        self._publisher = entities.publisher(type(message), _TOPIC, qos.COMMAND)
        self._step_s = spec.step_period_ns / 1e9
        self._scale = np.array([config.linear_scale_m] * 3 + [config.angular_scale_rad] * 3)
        self._delta = np.zeros(_POSE_DIMS)

    def flush(self) -> bool:
        """Wait for listeners; see `CommandOutput.flush`."""
        return bool(self._publisher.wait_for_all_acked(_FLUSH_TIMEOUT))

    def _limited_delta(self, command: Command) -> bool:
        """Write the step's translation, m, and rotation, rad, into `_delta`; whether a limit shortened it."""
        assert command.action is not None
        np.multiply(command.action[:_POSE_DIMS], self._scale, out=self._delta)
        shortened = limit_norm(self._delta[:3], self.limits.max_linear_m_s * self._step_s)
        return limit_norm(self._delta[3:], self.limits.max_angular_rad_s * self._step_s) or shortened


class TwistOutput(_Output):
    """End-effector deltas as velocities: a delta of one step over the time of one step."""

    def __init__(self, entities: Entities, *, config: CommandConfig, **common: Any) -> None:
        super().__init__(entities, TwistStamped(), config=config, **common)
        self._message.header.frame_id = config.frame_id

    def move(self, command: Command, now_ns: int) -> bool:
        """Publish the velocity of one step."""
        shortened = self._limited_delta(command)
        self._publish(self._delta / self._step_s, now_ns)
        return shortened

    def hold(self, command: Command, now_ns: int) -> None:
        """Publish zero velocity."""
        self._delta.fill(0.0)
        self._publish(self._delta, now_ns)

    def _publish(self, velocity: NDArray[np.float64], now_ns: int) -> None:
        write_time(self._message.header.stamp, now_ns)
        linear, angular = self._message.twist.linear, self._message.twist.angular
        linear.x, linear.y, linear.z, angular.x, angular.y, angular.z = velocity.tolist()
        self._publisher.publish(self._message)


class PoseOutput(_Output):
    """End-effector deltas as target poses, each from the pose measured when its step begins."""

    def __init__(self, entities: Entities, *, config: CommandConfig, **common: Any) -> None:
        super().__init__(entities, PoseStamped(), config=config, **common)
        self._message.header.frame_id = config.frame_id
        self._target = PoseTarget(config.workspace_min_m, config.workspace_max_m)

    def move(self, command: Command, now_ns: int) -> bool:
        """Publish the target of one step; nothing without a measured pose."""
        if command.proprio is None:
            return False
        shortened = self._limited_delta(command)
        pose, cut = self._target.move(self._delta, command.proprio, command.step_ns)
        self._publish(pose, now_ns)
        return shortened or cut

    def hold(self, command: Command, now_ns: int) -> None:
        """Publish the pose at which holding began; nothing without a measured pose."""
        if command.proprio is not None:
            self._publish(self._target.hold(command.proprio), now_ns)

    def _publish(self, pose: Pose, now_ns: int) -> None:
        write_time(self._message.header.stamp, now_ns)
        position, orientation = self._message.pose.position, self._message.pose.orientation
        position.x, position.y, position.z = pose.position.tolist()
        orientation.x, orientation.y, orientation.z, orientation.w = pose.quaternion.tolist()
        self._publisher.publish(self._message)


class _ActionOutput(_Output):
    """The action itself, without its gripper; standing still is zero, or the last action."""

    _values: NDArray[np.float64]

    def __init__(
        self,
        entities: Entities,
        message: Any,
        *,
        config: CommandConfig,
        spec: PolicySpec,
        limits: LimitsConfig,
    ) -> None:
        super().__init__(entities, message, config=config, spec=spec, limits=limits)
        self._holds_last = config.hold == "last"
        self._size = len(spec.action_names) - 1

    def move(self, command: Command, now_ns: int) -> bool:
        """Publish the action of one step; speeds in m/s mean nothing here, so no limit applies."""
        assert command.action is not None
        self._values[:] = command.action[: self._size]
        self._publish(now_ns)
        return False

    def hold(self, command: Command, now_ns: int) -> None:
        """Publish zeros or the last action again."""
        if not self._holds_last:
            self._values.fill(0.0)
        self._publish(now_ns)

    def _publish(self, now_ns: int) -> None:
        self._publisher.publish(self._message)


class ForwardOutput(_ActionOutput):
    """For forward command controllers: one number per joint, in the controller's order."""

    def __init__(self, entities: Entities, *, spec: PolicySpec, **common: Any) -> None:
        size = len(spec.action_names) - 1
        message = Float64MultiArray(data=array("d", [0.0] * size))
        message.layout.dim = [MultiArrayDimension(label="action", size=size, stride=size)]
        super().__init__(entities, message, spec=spec, **common)
        self._values = np.frombuffer(message.data)


class TrajectoryOutput(_ActionOutput):
    """For joint trajectory controllers: one point, to be reached when the step is over."""

    def __init__(self, entities: Entities, *, config: CommandConfig, spec: PolicySpec, **common: Any) -> None:
        point = JointTrajectoryPoint(positions=array("d", [0.0] * len(config.joint_names)))
        write_time(point.time_from_start, spec.step_period_ns)
        # A stamp of zero means "from now on": a point whose time is over would be dropped.
        message = JointTrajectory(joint_names=list(config.joint_names), points=[point])
        super().__init__(entities, message, config=config, spec=spec, **common)
        self._values = np.frombuffer(point.positions)
