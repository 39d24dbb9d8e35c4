"""A message's info reaches its callback, also where rclpy has none."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
import rclpy
from harness import LATCHED, wait_until
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from std_msgs.msg import String

from lightvla_ros.nodes import message_info


@pytest.fixture
def node() -> Iterator[Node]:
    context = Context()
    rclpy.init(context=context)
    node = Node("informed", context=context)
    yield node
    node.destroy_node()
    rclpy.shutdown(context=context)


@pytest.mark.parametrize("has_info", [True, False])
def test_a_message_comes_with_the_times_of_its_sending_and_its_arrival(
    node: Node, has_info: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not has_info:
        monkeypatch.setattr(message_info, "Subscription", object)
    heard: list[tuple[str, Any]] = []
    callback = message_info.informed(lambda message, info: heard.append((message.data, info)))
    node.create_subscription(String, "said", callback, LATCHED)
    before_ns = time.time_ns()
    node.create_publisher(String, "said", LATCHED).publish(String(data="hello"))
    executor = SingleThreadedExecutor(context=node.context)
    executor.add_node(node)
    wait_until(lambda: executor.spin_once(timeout_sec=0.05) or heard, "the message")
    text, info = heard[0]
    assert text == "hello"
    assert before_ns <= info["source_timestamp"] <= info["received_timestamp"] <= time.time_ns()
