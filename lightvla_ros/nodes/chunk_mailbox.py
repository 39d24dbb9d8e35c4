"""The newest whole action chunk of the policy, for a world that waits for it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Container

import numpy as np
from numpy.typing import NDArray
from rclpy.node import Node
from trajectory_msgs.msg import JointTrajectory

from lightvla_ros.nodes.conversions import stamp_ns
from lightvla_ros.sim.world import ACTION_NAMES

_SLOWER = 3.0
_SLOWEST_S = 20.0


class ChunkMailbox:
    """Takes `policy/action_chunk` in one thread and hands it out in another.

    Args:
        node: the node that owns the subscription.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._arrived = threading.Condition()
        self._newest: tuple[int, NDArray[np.float64]] | None = None
        node.create_subscription(JointTrajectory, "policy/action_chunk", self._on_chunk, 10)

    def wait(self, stamps_ns: Container[int], timeout_s: float) -> NDArray[np.float64] | None:
        """Wait for a chunk that answers an observation.

        Args:
            stamps_ns: of the observation, each time it was published.
            timeout_s: how long to wait.

        Returns:
            float64 [chunk_size, 7], from its first step on; None when it did not come in time.
        """

        def is_there() -> bool:
            return self._newest is not None and self._newest[0] in stamps_ns

        with self._arrived:
            if not self._arrived.wait_for(is_there, timeout_s):
                return None
            assert self._newest is not None
            return self._newest[1]

    def _on_chunk(self, message: JointTrajectory) -> None:
        sizes = {len(point.positions) for point in message.points}
        if tuple(message.joint_names) != ACTION_NAMES or sizes != {len(ACTION_NAMES)}:
            self._node.get_logger().error(
                f"/policy/action_chunk refused: got {len(message.points)} points of {sorted(sizes)} numbers "
                f"for {list(message.joint_names)}, expected one number for each of {list(ACTION_NAMES)}. "
                "Fix: run a policy whose actions are end-effector deltas",
                throttle_duration_sec=5.0,
            )
            return
        if stamp_ns(message.points[0].time_from_start):
            return  # the rest of a chunk whose first steps are past
        actions = np.array([point.positions for point in message.points], dtype=np.float64)
        with self._arrived:
            self._newest = stamp_ns(message.header.stamp), actions
            self._arrived.notify()


class Repetition:
    """When to say again what may not have been heard: at once, after a while, then ever less often.

    Args:
        say: says it.
    """

    def __init__(self, say: Callable[[], None]) -> None:
        self._say = say
        self.restart(0.0, again_s=_SLOWEST_S)

    def restart(self, now_s: float, *, again_s: float) -> None:
        """Begin anew; what is said now is said again after `again_s`."""
        self._due_s, self._interval_s = now_s, again_s

    def tick(self, now_s: float) -> None:
        """Say it if it is time to."""
        if now_s >= self._due_s:
            self._say()
            self._due_s = now_s + self._interval_s
            self._interval_s = min(self._interval_s * _SLOWER, _SLOWEST_S)
