"""Messages that go out, made once and written in place: command, gripper and chunk."""

from __future__ import annotations

from array import array
from typing import Any

import numpy as np
from geometry_msgs.msg import TwistStamped
from numpy.typing import NDArray
from rclpy.duration import Duration
from std_msgs.msg import Float64
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from lightvla_ros.core.chunk_schedule import RemainingSteps
from lightvla_ros.core.config import CommandConfig, GripperConfig, LimitsConfig
from lightvla_ros.core.limits import limit_norm
from lightvla_ros.core.policy import PolicySpec
from lightvla_ros.nodes import qos
from lightvla_ros.nodes.entities import Entities

_FLUSH_TIMEOUT = Duration(seconds=0.5)


def write_time(message: Any, time_ns: int) -> None:
    """Write nanoseconds into a Time or Duration message."""
    message.sec, message.nanosec = divmod(time_ns, 1_000_000_000)


class TwistOutput:
    """End-effector deltas as velocities: a delta of one step over the time of one step.

    Args:
        entities: owns the publisher.
        config: scales and frame.
        limits: largest speeds; may be replaced while running.
        step_period_ns: time of one step of the policy.
    """

    def __init__(
        self, entities: Entities, *, config: CommandConfig, limits: LimitsConfig, step_period_ns: int
    ) -> None:
        self.limits = limits
        self._publisher = entities.publisher(TwistStamped, "policy/command", qos.COMMAND)
        self._message = TwistStamped()
        self._message.header.frame_id = config.frame_id
        self._velocity = np.zeros(6)
        steps_per_s = 1e9 / step_period_ns
        linear, angular = config.linear_scale_m * steps_per_s, config.angular_scale_rad * steps_per_s
        self._scale = np.array([linear] * 3 + [angular] * 3)

    def move(self, action: NDArray[np.float32], now_ns: int) -> bool:
        """Publish the velocity of one action, float32 [>= 6].

        Returns:
            Whether a limit shortened it.
        """
        np.multiply(action[:6], self._scale, out=self._velocity)
        shortened = limit_norm(self._velocity[:3], self.limits.max_linear_m_s)
        shortened |= limit_norm(self._velocity[3:], self.limits.max_angular_rad_s)
        self._publish(now_ns)
        return shortened

    def hold(self, now_ns: int) -> None:
        """Publish zero velocity."""
        self._velocity.fill(0.0)
        self._publish(now_ns)

    def flush(self) -> bool:
        """Wait until every listener has the last command; whether it has within half a second."""
        return bool(self._publisher.wait_for_all_acked(_FLUSH_TIMEOUT))

    def _publish(self, now_ns: int) -> None:
        write_time(self._message.header.stamp, now_ns)
        linear, angular = self._message.twist.linear, self._message.twist.angular
        linear.x, linear.y, linear.z, angular.x, angular.y, angular.z = self._velocity.tolist()
        self._publisher.publish(self._message)


class GripperOutput:
    """The gripper's own topic, spoken to on change."""

    def __init__(self, entities: Entities, config: GripperConfig) -> None:
        self._publisher = entities.publisher(Float64, "policy/gripper", qos.COMMAND)
        self._open = Float64(data=config.open_value)
        self._closed = Float64(data=config.closed_value)

    def publish(self, *, close: bool) -> None:
        """Open or close."""
        self._publisher.publish(self._closed if close else self._open)


class ChunkOutput:
    """The part of the newest chunk still ahead, as a trajectory of actions."""

    def __init__(self, entities: Entities, spec: PolicySpec) -> None:
        self._publisher = entities.publisher(JointTrajectory, "policy/action_chunk", qos.COMMAND)
        self._message = JointTrajectory(joint_names=list(spec.action_names))
        zeros = [0.0] * len(spec.action_names)
        self._points = [JointTrajectoryPoint(positions=array("d", zeros)) for _ in range(spec.chunk_size)]

    def publish(self, steps: RemainingSteps) -> None:
        """Publish steps; each point's time_from_start is its due time relative to the observation."""
        write_time(self._message.header.stamp, steps.stamp_ns)
        points = self._points[: len(steps.actions)]
        for offset, (point, action) in enumerate(zip(points, steps.actions, strict=True)):
            np.frombuffer(point.positions)[:] = action
            write_time(point.time_from_start, (steps.first_index + offset) * steps.step_period_ns)
        self._message.points = points
        self._publisher.publish(self._message)
