"""The node itself is killed, doubled, starved of its disk, reconfigured or drowned in other nodes."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from graph import LATE_S, STALE_AFTER_S, Graph
from std_msgs.msg import Bool

pytestmark = pytest.mark.slow

# Twenty nodes in four processes' worth of contexts, sixty topics.
CROWD = """
import sys, time
import rclpy
from rclpy.context import Context
from rclpy.node import Node
from std_msgs.msg import String

nodes = []
for process in range(4):
    context = Context()
    rclpy.init(context=context)
    for number in range(5):
        node = Node(f"crowd_{process}_{number}", context=context)
        nodes.append(node)
        for topic in range(3):
            node.create_publisher(String, f"/crowd_{process}_{number}_{topic}", 10)
            node.create_subscription(String, f"/crowd_{process}_{number}_{topic}", print, 10)
    time.sleep(0.1)
print("all here", flush=True)
sys.stdin.read()
"""


def is_running(pid: int | None) -> bool:
    """Whether there is such a process; one that nobody has buried yet is none."""
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False


@pytest.fixture(scope="module")
def started(make_graph: Callable[[], Graph]) -> Graph:
    graph = make_graph()
    graph.start_moving_for_long()
    return graph


@pytest.fixture
def moving(started: Graph) -> Iterator[Graph]:
    """A node that moves the robot, before the test and after it."""
    started.wait_for_motion()
    yield started
    started.robot.heal()
    started.wait_for_motion()


def test_a_node_killed_in_motion_and_started_again_waits_for_leave(graph: Graph) -> None:
    node = graph.start(spoiled=True)
    graph.wait_for_reason("no_instruction")
    node.fault("echo")
    graph.robot.instruct("go 100")
    graph.wait_for_motion()
    inference = node.inference_pid
    killed = time.monotonic()
    node.process.kill()
    graph.wait_until(lambda: not is_running(inference), "the end of its inference process")
    before = len(graph.robot.commands)
    assert graph.robot.commands[-1][0] - killed < LATE_S

    graph.start("restarted", spoiled=True, enable_actuation=False)
    graph.wait_until(lambda: graph.status("restarted").get("instruction"), "the latched instruction")
    graph.wait_until(lambda: graph.status("restarted")["stop_reason"] == "disabled", "leave to be missing")
    assert len(graph.robot.commands) == before, "a command before leave was given"
    graph.nodes[-1].fault("echo")
    graph.reset("restarted")
    graph.enable("restarted")
    graph.wait_for_motion()
    assert {round(speed, 4) for speed in graph.robot.speeds[before:]} == {0.05}, "a jump"


def test_a_restarted_node_that_may_move_at_once_needs_fresh_images(graph: Graph) -> None:
    node = graph.start_moving()
    graph.robot.cameras.clear()
    node.process.kill()
    node.process.wait()
    before = len(graph.robot.commands)
    graph.start()
    graph.wait_until(lambda: graph.status().get("active") == "True", "the restarted node")
    graph.wait_for_reason("missing:third_person")
    assert len(graph.robot.commands) == before
    graph.robot.heal()
    graph.wait_for_motion()


def test_an_emergency_stop_outlasts_a_released_button_and_a_new_instruction(moving: Graph) -> None:
    button = moving.robot.create_publisher(Bool, "/estop", 10)
    moving.wait_until(lambda: button.get_subscription_count() == 1, "the node to listen")
    button.publish(Bool(data=True))
    moving.assert_stops("estop", within_s=LATE_S)
    button.publish(Bool(data=False))
    moving.robot.instruct("pick up the blue cube and place it in the basket")
    moving.assert_still()
    moving.reset()
    moving.wait_for_motion()
    moving.robot.destroy_publisher(button)


def test_two_nodes_on_one_command_topic_both_stop_until_one_is_gone(moving: Graph) -> None:
    begun = time.monotonic()
    rival = moving.start("rival")
    moving.wait_for_reason("two_commanders", "rival")
    moving.wait_for_reason("two_commanders")
    assert "/policy/command has 2 publishers" in moving.status()["stop_message"]
    moving.assert_holds_then_silence(begun, within_s=5.0)
    rival.end()
    moving.wait_for_motion()


def test_a_disk_that_is_full_costs_log_lines_and_nothing_else(graph: Graph) -> None:
    node = graph.start_moving()
    before = node.log
    # No file of this process can be written any further, as on a full disk; shared memory is in place.
    resource.prlimit(node.process.pid, resource.RLIMIT_FSIZE, (0, 0))
    for _ in range(3):
        graph.robot.fingers = [float("nan"), 0.0]
        graph.assert_stops("refused:robot_state")
        graph.robot.heal()
        graph.wait_for_motion()
    graph.assert_moves(1.0)
    assert node.log == before, "the log was written, so nothing was tested"


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("command_rate_hz", 50.0, "read-only"),
        ("engine", "other", "read-only"),
        ("limits.max_linear_m_s", -1.0, "limits.max_linear_m_s"),
        ("stale_after_s", 1e9, "stale_after_s"),
        ("schedule.mode", "sometimes", "continuous"),
        ("limits.action_max", [0.1, 0.2], "one per action dimension"),
        ("limits.workspace_min_m", [20.0, 20.0, 20.0], "workspace_max_m"),
        ("no_such_parameter", 1, "undeclared"),
    ],
)
def test_a_parameter_that_cannot_be_changed_is_refused_and_changes_nothing(
    moving: Graph, name: str, value: object, reason: str
) -> None:
    begun = time.monotonic()
    result = moving.set_parameter(name, value)
    assert not result.successful
    assert reason in result.reason
    moving.assert_moves(0.3)
    moving.assert_on_time(begun, time.monotonic())


@pytest.mark.parametrize(
    ("name", "value", "default"),
    [
        ("limits.max_linear_m_s", 0.001, 1.0),
        ("stale_after_s", 0.2, 0.5),
        ("schedule.execution_horizon", 4, 2),
        ("schedule.mode", "threshold", "continuous"),
        ("limits.action_max", [0.5], [1000.0]),
        ("limits.workspace_max_m", [1.0, 1.0, 1.0], [10.0, 10.0, 10.0]),
        ("schedule.blending", "ensemble", "overlap"),
    ],
)
def test_a_parameter_changed_in_motion_takes_effect_and_commands_go_on(
    moving: Graph, name: str, value: object, default: object
) -> None:
    begun = time.monotonic()
    assert moving.set_parameter(name, value).successful
    moving.assert_moves(0.5)
    if name == "limits.max_linear_m_s":
        assert max(map(abs, moving.robot.speeds[-5:])) <= 0.001
    assert moving.set_parameter(name, default).successful
    moving.assert_on_time(begun, time.monotonic())


def test_twenty_nodes_and_sixty_topics_that_appear_delay_no_command(moving: Graph) -> None:
    # Discovery can keep the robot busy too; what it then sends late is not what this is about.
    assert moving.set_parameter("stale_after_s", 5.0).successful
    environment = {**os.environ, "ROS_DOMAIN_ID": str(moving.domain_id)}
    begun = time.monotonic()
    crowd = subprocess.Popen(
        [sys.executable, "-c", CROWD], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert crowd.stdout is not None  # a pipe, as asked for
        assert crowd.stdout.readline() == b"all here\n"
        names = moving.robot.get_node_names
        moving.wait_until(lambda: sum(name.startswith("crowd") for name in names()) == 20, "the crowd")
    finally:
        crowd.kill()
        crowd.wait()
    moving.assert_moves(1.0)
    moving.assert_on_time(begun, time.monotonic())
    assert moving.next_status()["stop_reason"] == ""
    assert moving.set_parameter("stale_after_s", STALE_AFTER_S).successful
