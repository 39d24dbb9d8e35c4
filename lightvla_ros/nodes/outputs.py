"""Messages that go out beside the command, made once and written in place: gripper and chunk."""

from __future__ import annotations

from array import array
from typing import Any

import numpy as np
from std_msgs.msg import Float64
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from lightvla_ros.core.chunk_schedule import RemainingSteps
from lightvla_ros.core.config import GripperConfig
from lightvla_ros.core.policy import PolicySpec
from lightvla_ros.nodes import qos
from lightvla_ros.nodes.entities import Entities


def write_time(message: Any, time_ns: int) -> None:
    """Write nanoseconds into a Time or Duration message."""
    message.sec, message.nanosec = divmod(time_ns, 1_000_000_000)


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
