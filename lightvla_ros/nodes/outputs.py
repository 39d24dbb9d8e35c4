"""Messages that go out beside the command, made once and written in place: gripper and chunk."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from std_msgs.msg import Float64
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from lightvla_ros.core.chunk_schedule import RemainingSteps
from lightvla_ros.core.output_config import GripperConfig
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


class Trajectory:
    """A JointTrajectory of positions, made once and written in place.

    Args:
        joint_names: a name for each number of a point.
        size: most points it can have.
    """

    def __init__(self, joint_names: Sequence[str], size: int) -> None:
        self._message = JointTrajectory(joint_names=list(joint_names))
        zeros = [0.0] * len(joint_names)
        self._points = [JointTrajectoryPoint(positions=array("d", zeros)) for _ in range(size)]
        self._positions = [np.frombuffer(point.positions) for point in self._points]

    def write(
        self, positions: NDArray[np.floating[Any]], *, stamp_ns: int, first_ns: int, period_ns: int = 0
    ) -> JointTrajectory:
        """Return the message with other content; the next call overwrites it.

        Args:
            positions: [R, J], 1 <= R <= size.
            stamp_ns: when the trajectory starts, which need not be in the future; 0 is on arrival.
            first_ns: time from there to the first point, positive.
            period_ns: time between two points.
        """
        write_time(self._message.header.stamp, stamp_ns)
        points = self._points[: len(positions)]
        for index, (point, row) in enumerate(zip(points, positions, strict=True)):
            self._positions[index][:] = row
            write_time(point.time_from_start, first_ns + index * period_ns)
        self._message.points = points
        return self._message

    def write_steps(self, steps: RemainingSteps, order: NDArray[np.intp]) -> JointTrajectory:
        """Return the message with steps in it, stamped with their observation's time.

        Args:
            steps: what to write.
            order: intp [J], the action dimensions to take.
        """
        return self.write(
            steps.actions[:, order],
            stamp_ns=steps.stamp_ns,
            first_ns=steps.begins_ns - steps.stamp_ns,
            period_ns=steps.step_period_ns,
        )


class ChunkOutput:
    """The part of the newest chunk still ahead, as a trajectory of actions."""

    def __init__(self, entities: Entities, spec: PolicySpec) -> None:
        self._publisher = entities.publisher(JointTrajectory, "policy/action_chunk", qos.COMMAND)
        self._trajectory = Trajectory(spec.action_names, spec.chunk_size)
        self._order = np.arange(len(spec.action_names))

    def publish(self, steps: RemainingSteps) -> None:
        """Publish steps; each point's time_from_start is its due time relative to the observation."""
        self._publisher.publish(self._trajectory.write_steps(steps, self._order))
