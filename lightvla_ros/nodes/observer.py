"""A node for a program that is no part of the robot: no rosout, no parameters, a context of its own."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node

_SPIN_TIMEOUT_S = 0.1


@contextmanager
def observing(name: str) -> Iterator[tuple[Node, SingleThreadedExecutor]]:
    """Join the ROS graph.

    Args:
        name: of the node; the process's number is added, for several may observe at once, and a graph with
            two nodes of one name is a warning to everybody.

    Yields:
        The node, and the executor it was added to; the caller spins.
    """
    context = Context()
    rclpy.init(args=[], context=context)
    node = rclpy.create_node(
        f"{name}_{os.getpid()}", context=context, enable_rosout=False, start_parameter_services=False
    )
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    try:
        yield node, executor
    finally:
        executor.shutdown()
        node.destroy_node()
        rclpy.shutdown(context=context)


@contextmanager
def spinning(executor: SingleThreadedExecutor) -> Iterator[None]:
    """Take in messages in a thread, where the caller's belongs to something else."""
    ended = threading.Event()

    def spin() -> None:
        while not ended.is_set():
            executor.spin_once(timeout_sec=_SPIN_TIMEOUT_S)

    thread = threading.Thread(target=spin, name="ros", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
