"""The main job as a stranger sees it: simulator and policy as processes, watched with nothing but rclpy."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator

import pytest
import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, qos_profile_sensor_data
from sensor_msgs.msg import Image
from std_msgs.msg import String
from std_srvs.srv import SetBool
from trajectory_msgs.msg import JointTrajectory

from lightvla_ros.commands._processes import running

DOMAIN_ID = 55 - os.getpid() % 40
RED, BLUE = (f"pick up the {colour} cube and place it in the basket" for colour in ("red", "blue"))
STEP_NS = 50_000_000


class Stranger(Node):
    """Hears the cameras, the chunks and the masks; says instructions."""

    def __init__(self, context: Context) -> None:
        super().__init__("stranger", context=context)
        self.image_stamps: set[int] = set()
        self.chunks: list[JointTrajectory] = []
        self.retained: dict[int, int] = {}
        for camera in ("third_person", "wrist"):
            self.create_subscription(
                Image, f"/camera/{camera}/image", self._on_image, qos_profile_sensor_data
            )
            self.create_subscription(
                Image, f"/policy/retained_tokens/{camera}", self._on_mask, qos_profile_sensor_data
            )
        self.create_subscription(JointTrajectory, "/policy/action_chunk", self.chunks.append, 10)
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.instruction = self.create_publisher(String, "/instruction", latched)
        self.own_executor = SingleThreadedExecutor(context=context)
        self.own_executor.add_node(self)

    def say(self, text: str) -> int:
        """Publish an instruction; returns the time it was said."""
        self.instruction.publish(String(data=text))
        return int(self.get_clock().now().nanoseconds)

    def enable(self) -> None:
        client = self.create_client(SetBool, "/lightvla_policy/enable")
        self.wait_until(client.service_is_ready)
        answer = client.call_async(SetBool.Request(data=True))
        self.wait_until(answer.done)
        assert answer.result().success

    def wait_until(self, is_done: Callable[[], bool], timeout_s: float = 30.0) -> None:
        deadline_s = time.monotonic() + timeout_s
        while not is_done():
            assert time.monotonic() < deadline_s, "nothing happened in time"
            self.own_executor.spin_once(timeout_sec=0.05)

    def _on_image(self, message: Image) -> None:
        self.image_stamps.add(stamp_ns(message))

    def _on_mask(self, message: Image) -> None:
        assert message.encoding == "mono8"
        retained = sum(value == 255 for value in message.data)
        self.retained[stamp_ns(message)] = self.retained.get(stamp_ns(message), 0) + retained


def stamp_ns(message: Image | JointTrajectory) -> int:
    return message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stranger]:
    """A stranger in a graph where the embedded policy waits for leave to move the robot."""
    nodes: dict[str, list[str]] = {
        "lightvla_ros.nodes.sim_node": [],
        "lightvla_ros.nodes.policy_node": ["--ros-args", "-p", "auto_activate:=true"],
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROS_DOMAIN_ID", str(DOMAIN_ID))
        context = Context()
        rclpy.init(context=context, domain_id=DOMAIN_ID)
        with running(nodes, log_directory=tmp_path_factory.mktemp("logs")):
            node = Stranger(context)
            yield node
            node.own_executor.shutdown()
            node.destroy_node()
        rclpy.shutdown(context=context)


def test_a_new_instruction_changes_what_the_policy_wants_within_one_inference(stranger: Stranger) -> None:
    stranger.say(RED)
    stranger.wait_until(lambda: len(stranger.chunks) >= 20)
    before = stranger.chunks[-1]
    said_ns = stranger.say(BLUE)
    stranger.wait_until(lambda: stamp_ns(stranger.chunks[-1]) > said_ns)
    first = next(chunk for chunk in stranger.chunks if stamp_ns(chunk) > said_ns)
    assert stamp_ns(first) - said_ns < 10 * STEP_NS
    # Commands are disabled, so the arm and the pictures stood still: only the words have changed.
    changes = [abs(a - b) for a, b in zip(first.points[0].positions, before.points[0].positions, strict=True)]
    assert max(changes) > 0.02


def test_chunks_carry_camera_stamps_and_the_retained_count_changes_while_the_robot_moves(
    stranger: Stranger,
) -> None:
    stranger.enable()
    stranger.chunks.clear()
    stranger.retained.clear()
    stranger.wait_until(lambda: len(stranger.chunks) >= 40 and len(stranger.retained) >= 40)
    # Images are best effort: one that the stranger missed does not make the node's stamp wrong.
    unseen = {stamp_ns(chunk) for chunk in stranger.chunks} - stranger.image_stamps
    assert len(unseen) <= 2
    assert all(1 <= len(chunk.points) <= 8 and len(chunk.joint_names) == 7 for chunk in stranger.chunks)
    counts = [stranger.retained[stamp] for stamp in sorted(stranger.retained)][1:-1]
    assert all(1 <= count < 128 for count in counts)
    assert sum(a != b for a, b in zip(counts, counts[1:], strict=False)) >= len(counts) // 4
