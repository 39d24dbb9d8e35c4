"""An ear on a topic whose type changes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import rclpy
from harness import wait_until
from rclpy.context import Context
from rclpy.node import Node
from std_msgs.msg import Bool, String

from lightvla_ros.nodes import qos
from lightvla_ros.nodes.topic_ear import TopicEar

TOPIC = "/said"


@pytest.fixture
def nodes() -> Iterator[list[Node]]:
    """One that listens and one that speaks."""
    contexts = [Context(), Context()]
    for context in contexts:
        rclpy.init(context=context)
    nodes = [Node("node", context=context) for context in contexts]
    yield nodes
    for node, context in zip(nodes, contexts, strict=True):
        node.destroy_node()
        rclpy.shutdown(context=context)


def test_a_type_that_cannot_be_heard_leaves_an_ear_that_still_works(nodes: list[Node]) -> None:
    listener, speaker = nodes
    problems: list[str] = []
    ear = TopicEar(
        listener,
        TOPIC,
        # As if another plugin had taken the topic's name for another type.
        handlers={"std_msgs/msg/String": (String, print), "std_msgs/msg/Bool": (object, print)},
        wanted=qos.OBSERVED,
        on_problem=problems.append,
        on_error=lambda error: None,
    )

    def publishers(number: int) -> None:
        wait_until(lambda: listener.count_publishers(TOPIC) == number, f"{number} publishers")

    texts = speaker.create_publisher(String, TOPIC, 1)
    publishers(1)
    ear.watch()
    speaker.destroy_publisher(texts)
    publishers(0)
    switches = speaker.create_publisher(Bool, TOPIC, 1)
    publishers(1)
    with pytest.raises(Exception, match=".+"):  # of another class in every distribution
        ear.watch()
    speaker.destroy_publisher(switches)
    publishers(0)
    for _ in range(10):
        ear.watch()
    assert problems[-1] == f"nobody publishes {TOPIC}"
    ear.close()
    assert not list(listener.subscriptions)
