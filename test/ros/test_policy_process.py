"""The node's own process: a signal ends it, but not before the robot stands still."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import rclpy
from harness import TIMEOUT_S, Robot, wait_until
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor

PROGRAM = """
import sys
import time
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


NODES = {
    "policy_node": ["-p", "auto_activate:=true", "-p", "worker.separate_process:=false"],
    "sim_node": ["-p", "image_size:=32"],
}
EXECUTABLE = """
import sys
import time
from lightvla_ros.nodes import executables
print("signals are heard", flush=True)
sys.exit(getattr(executables, sys.argv[1])())
"""


def interrupted(name: str, *, after: str, delay_s: float, gap_s: float) -> tuple[int, str]:
    """Start an executable and interrupt it until it has ended; return its exit code and output.

    Args:
        name: of the executable.
        after: what its output has to say first.
        delay_s: from there to the first signal.
        gap_s: between two signals.
    """
    child = subprocess.Popen(
        [sys.executable, "-c", EXECUTABLE, name, "--ros-args", *NODES[name]],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
    )
    try:
        assert child.stdout is not None
        seen = []
        for line in child.stdout:
            seen.append(line)
            if after in line:
                break
        time.sleep(delay_s)
        deadline_s = time.monotonic() + TIMEOUT_S
        while child.poll() is None and time.monotonic() < deadline_s:
            child.send_signal(signal.SIGINT)
            time.sleep(gap_s)
        return child.wait(1.0), "".join([*seen, child.stdout.read()])
    finally:
        child.kill()


@pytest.mark.parametrize("gap_s", [0.01, 0.05, 0.3])
@pytest.mark.parametrize(("name", "after"), [("policy_node", "warmed up"), ("sim_node", "episode 1")])
def test_signals_that_go_on_until_the_process_has_ended_change_nothing(
    name: str, after: str, gap_s: float
) -> None:
    if name == "sim_node":
        pytest.importorskip("mujoco", reason="needs the extra sim")
    code, output = interrupted(name, after=after, delay_s=0.2, gap_s=gap_s)
    assert code == 0, output
    assert "Traceback" not in output


@pytest.mark.parametrize("delay_s", [0.1, 0.5, 1.0])
@pytest.mark.parametrize("name", NODES)
def test_a_signal_while_the_node_still_starts_ends_it_cleanly(name: str, delay_s: float) -> None:
    if name == "sim_node":
        pytest.importorskip("mujoco", reason="needs the extra sim")
    code, output = interrupted(name, after="signals are heard", delay_s=delay_s, gap_s=0.05)
    assert code == 0, output
    assert "Traceback" not in output
