"""Chunks for a world that waits for them: whole ones are handed out, anything else is refused."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pytest
import rclpy
from rclpy.context import Context
from rclpy.node import Node
from trajectory_msgs.msg import JointTrajectory, JointTrajectoryPoint

from lightvla_ros.nodes.chunk_mailbox import ChunkMailbox
from lightvla_ros.sim.world import ACTION_NAMES

STAMP_NS = 3_000_000_007
WHOLE = [0.1] * 7


@pytest.fixture
def mailbox() -> Iterator[ChunkMailbox]:
    context = Context()
    rclpy.init(context=context)
    node = Node("waiting", context=context)
    yield ChunkMailbox(node)
    node.destroy_node()
    rclpy.shutdown(context=context)


def chunk(points: Sequence[Sequence[float]], *, first_ns: int = 0) -> JointTrajectory:
    message = JointTrajectory(joint_names=list(ACTION_NAMES))
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(STAMP_NS, 10**9)
    message.points = [JointTrajectoryPoint(positions=list(positions)) for positions in points]
    for number, point in enumerate(message.points):
        point.time_from_start.nanosec = first_ns + number * 50_000_000
    return message


def test_a_whole_chunk_is_handed_out_for_its_stamp(mailbox: ChunkMailbox) -> None:
    mailbox._on_chunk(chunk([WHOLE, [0.2] * 7]))
    actions = mailbox.wait({STAMP_NS}, 0.0)
    assert actions is not None
    np.testing.assert_array_equal(actions, [WHOLE, [0.2] * 7])
    assert mailbox.wait({STAMP_NS + 1}, 0.0) is None


@pytest.mark.parametrize(
    "message",
    [chunk([]), chunk([WHOLE, WHOLE[:3]]), chunk([WHOLE], first_ns=1)],
    ids=["no points", "points of two sizes", "the rest of a chunk"],
)
def test_anything_else_is_left_out_and_nothing_raises(
    mailbox: ChunkMailbox, message: JointTrajectory
) -> None:
    mailbox._on_chunk(message)
    assert mailbox.wait({STAMP_NS}, 0.0) is None
