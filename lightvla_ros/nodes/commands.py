"""The command topic in each of its types; messages are made once and written in place.

An output is told to move or to hold at every tick, and to hold never before it has moved. What it may
do is decided elsewhere. docs/controllers.md says which controller wants which type.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from array import array
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from geometry_msgs.msg import PoseStamped, TwistStamped
from numpy.typing import NDArray
from rclpy.duration import Duration
from std_msgs.msg import Float64MultiArray, MultiArrayDimension
from trajectory_msgs.msg import JointTrajectory

from lightvla_ros.core.config import NodeConfig
from lightvla_ros.core.joint_order import joint_order
from lightvla_ros.core.limits import limit_delta
from lightvla_ros.core.output import Command
from lightvla_ros.core.output_config import LimitsConfig
from lightvla_ros.core.policy import PolicySpec
from lightvla_ros.core.policy_fit import check_actions
from lightvla_ros.core.pose_target import Pose, PoseTarget
from lightvla_ros.nodes import qos
from lightvla_ros.nodes.entities import Entities
from lightvla_ros.nodes.outputs import Trajectory, write_time

_TOPIC = "policy/command"
_FLUSH_TIMEOUT = Duration(seconds=0.5)
_POSE_DIMS = 6


class CommandOutput(Protocol):
    """One way to command a robot.

    Attributes:
        limits: how far and how fast; may be replaced while running.
        topic: full name of its topic.
    """

    limits: LimitsConfig
    topic: str

    def move(self, command: Command, now_ns: int) -> bool:
        """Publish a command that moves; whether a limit changed it."""
        ...

    def hold(self, command: Command, now_ns: int) -> None:
        """Publish what stands still."""
        ...

    def flush(self) -> bool:
        """Wait until every listener has the last command; whether it has within half a second."""
        ...


def make_command_output(entities: Entities, *, config: NodeConfig, spec: PolicySpec) -> CommandOutput | None:
    """Make the output that `command.type` names; None for none.

    Raises:
        ConfigError: the policy's actions do not fit it.
    """
    check_actions(config, spec)
    kinds: dict[str, Callable[..., CommandOutput]] = {
        "twist": TwistOutput,
        "pose": PoseOutput,
        "forward": ForwardOutput,
        "jtc_point": JointPointOutput,
        "jtc_chunk": JointChunkOutput,
    }
    kind = kinds.get(config.command.type)
    return None if kind is None else kind(entities, config, spec)


class _Output:
    """What all outputs share."""

    def __init__(self, entities: Entities, config: NodeConfig, message: type) -> None:
        self.limits = config.limits
        self._publisher = entities.publisher(message, _TOPIC, qos.COMMAND)
        self.topic = str(self._publisher.topic_name)

    def flush(self) -> bool:
        """Wait for listeners; see `CommandOutput.flush`."""
        return bool(self._publisher.wait_for_all_acked(_FLUSH_TIMEOUT))


class _DeltaOutput(_Output):
    """End-effector deltas in metres and radians, limited."""

    def __init__(self, entities: Entities, config: NodeConfig, spec: PolicySpec, message: Any) -> None:
        super().__init__(entities, config, type(message))
        command = config.command
        self._message = message
        self._message.header.frame_id = command.frame_id
        self._step_s = spec.step_period_ns / 1e9
        self._scale = np.array([command.linear_scale_m] * 3 + [command.angular_scale_rad] * 3)
        self._delta = np.zeros(_POSE_DIMS)
        self._knows_pose = spec.proprio_dim >= _POSE_DIMS

    def _limited_delta(self, command: Command) -> bool:
        """Write the step's translation, m, and rotation, rad, into `_delta`; whether a limit shortened it."""
        assert command.action is not None
        np.multiply(command.action[:_POSE_DIMS], self._scale, out=self._delta)
        position = command.proprio if self._knows_pose else None
        return limit_delta(self._delta, position, self.limits, self._step_s)


class TwistOutput(_DeltaOutput):
    """End-effector deltas as velocities: a delta of one step over the time of one step."""

    def __init__(self, entities: Entities, config: NodeConfig, spec: PolicySpec) -> None:
        super().__init__(entities, config, spec, TwistStamped())

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


class PoseOutput(_DeltaOutput):
    """End-effector deltas as target poses, each from the pose measured when its step begins."""

    def __init__(self, entities: Entities, config: NodeConfig, spec: PolicySpec) -> None:
        super().__init__(entities, config, spec, PoseStamped())
        self._target = PoseTarget()

    def move(self, command: Command, now_ns: int) -> bool:
        """Publish the target of one step; nothing without a measured pose."""
        if command.proprio is None:
            return False
        shortened = self._limited_delta(command)
        self._publish(self._target.move(self._delta, command.proprio, command.step_ns), now_ns)
        return shortened

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


class _JointOutput(_Output, ABC):
    """One number per joint in the controller's order; its limits are those of the action dimensions."""

    def __init__(self, entities: Entities, config: NodeConfig, spec: PolicySpec, message: type) -> None:
        super().__init__(entities, config, message)
        self._order = joint_order(config.command.joint_names, spec.action_names[:-1])
        self._values = np.zeros(len(self._order))

    def move(self, command: Command, now_ns: int) -> bool:
        """Publish the action due now."""
        assert command.action is not None
        self._values[:] = command.action[self._order]
        self._publish()
        return False

    def hold(self, command: Command, now_ns: int) -> None:
        """Publish the last values again."""
        self._publish()

    @abstractmethod
    def _publish(self) -> None:
        """Publish `_values`."""


class ForwardOutput(_JointOutput):
    """For forward command controllers: the numbers themselves; standing still is zero for deltas."""

    def __init__(self, entities: Entities, config: NodeConfig, spec: PolicySpec) -> None:
        super().__init__(entities, config, spec, Float64MultiArray)
        self._is_zero_still = config.schedule.actions == "deltas"
        size = len(self._order)
        self._message = Float64MultiArray(data=array("d", [0.0] * size))
        self._message.layout.dim = [MultiArrayDimension(label="joints", size=size, stride=size)]
        self._values = np.frombuffer(self._message.data)

    def hold(self, command: Command, now_ns: int) -> None:
        """Publish zeros or the last values again."""
        if self._is_zero_still:
            self._values.fill(0.0)
        self._publish()

    def _publish(self) -> None:
        self._publisher.publish(self._message)


class JointPointOutput(_JointOutput):
    """For joint trajectory controllers: one point, to be reached when the next command comes."""

    def __init__(self, entities: Entities, config: NodeConfig, spec: PolicySpec) -> None:
        super().__init__(entities, config, spec, JointTrajectory)
        self._trajectory = Trajectory(config.command.joint_names, spec.chunk_size)
        self._period_ns = round(1e9 / config.command_rate_hz)

    def _publish(self) -> None:
        # A stamp of zero means "from now on": a point that arrives after its time would be dropped.
        message = self._trajectory.write(self._values[None], stamp_ns=0, first_ns=self._period_ns)
        self._publisher.publish(message)


class JointChunkOutput(JointPointOutput):
    """For joint trajectory controllers: all steps ahead, each at its own time; to hold, one point.

    A chunk is sent once. The controller keeps what it was sent, and begins every new trajectory at the
    measured position: the same steps sent again would say nothing new and set the arm back by its
    following error at each tick. A hold is sent at every tick, since it must not be missed.
    """

    def __init__(self, entities: Entities, config: NodeConfig, spec: PolicySpec) -> None:
        super().__init__(entities, config, spec)
        self._sent_ns: int | None = None

    def move(self, command: Command, now_ns: int) -> bool:
        """Publish the steps ahead unless the controller has them; without any, the action due now."""
        assert command.action is not None
        self._values[:] = command.action[self._order]
        steps = command.ahead
        if steps is not None and steps.stamp_ns != self._sent_ns:
            self._sent_ns = steps.stamp_ns
            self._publisher.publish(self._trajectory.write_steps(steps, self._order))
        elif self._sent_ns is None:
            self._publish()
        return False

    def hold(self, command: Command, now_ns: int) -> None:
        """Publish the position that was due last, in place of the steps still ahead."""
        self._sent_ns = None
        self._publish()
