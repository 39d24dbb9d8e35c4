"""The node's own process: a signal ends it, but not before the robot stands still."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import rclpy
from harness import TIMEOUT_S, Robot, wait_until
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor

PROGRAM = """
import sys
from harness import SteadyPolicy
from lightvla_ros.nodes.policy_node import main
sys.exit(main(sys.argv, make_policy=lambda config: SteadyPolicy()))
"""
ROOT = Path(__file__).parents[2]


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    """The policy node as launch starts it: active and enabled by parameters."""
    parameters = ["-p", "auto_activate:=true", "-p", "enable_actuation:=true"]
    child = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "--ros-args", *parameters],
        cwd=Path(__file__).parent,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
    )
    yield child
    child.kill()
    child.wait()


@pytest.fixture
def robot() -> Iterator[Robot]:
    """A robot in this process."""
    context = Context()
    rclpy.init(context=context)
    node = Robot(context)
    yield node
    node.destroy_node()
    rclpy.shutdown(context=context)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_robot_and_ends_the_process_cleanly(
    process: subprocess.Popen[bytes], robot: Robot, number: signal.Signals
) -> None:
    executor = SingleThreadedExecutor(context=robot.context)
    executor.add_node(robot)
    robot.instruct("go")

    def spun(condition: bool) -> bool:
        executor.spin_once(timeout_sec=0.05)
        return condition

    wait_until(lambda: spun(len(robot.moves) > 3), "motion")
    process.send_signal(number)
    wait_until(lambda: spun(process.poll() is not None), "the end of the process")
    wait_until(lambda: spun(robot.speeds[-1] == 0.0), "the zero command")
    assert process.wait(TIMEOUT_S) == 0
