"""An ear on /diagnostics for a program that is no robot's part: no rosout, no parameters, no services."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeAlias

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor

from lightvla_ros.nodes import qos

# name, level, message and key -> value of one status
OnStatus: TypeAlias = Callable[[str, int, str, Mapping[str, str]], None]
Listen: TypeAlias = Callable[[float], None]


@contextmanager
def listening(on_status: OnStatus) -> Iterator[Listen]:
    """Subscribe to /diagnostics.

    Args:
        on_status: called with every status, in the thread that listens.

    Yields:
        A function that takes in at most one message and returns after so many seconds without one.
    """

    def on_message(message: DiagnosticArray) -> None:
        for status in message.status:
            values = {item.key: item.value for item in status.values}
            on_status(status.name, int.from_bytes(status.level, "little"), status.message, values)

    context = Context()
    rclpy.init(args=[], context=context)
    # Several may watch at once, and a graph with two nodes of one name is a warning to everybody.
    node = rclpy.create_node(
        f"lightvla_top_{os.getpid()}",
        context=context,
        enable_rosout=False,
        start_parameter_services=False,
    )
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    node.create_subscription(DiagnosticArray, "/diagnostics", on_message, qos.DIAGNOSTICS)
    try:
        yield lambda timeout_s: executor.spin_once(timeout_sec=timeout_s)
    finally:
        executor.shutdown()
        node.destroy_node()
        rclpy.shutdown(context=context)
