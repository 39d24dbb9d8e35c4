"""`lightvla top` as a process beside the real policy node, and the levels of the status it shows."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import termios
from collections.abc import Callable

import pytest
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from harness import TIMEOUT_S, Bench, SteadyPolicy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor

from lightvla_ros.core.config import NodeConfig
from lightvla_ros.core.control_loop import ControlLoop
from lightvla_ros.nodes.diagnostics import Diagnostics, idle_status, running_status

MakeBench = Callable[..., Bench]
COMMAND = "import sys; from lightvla_ros.cli import main; sys.exit(main())"


def top(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", COMMAND, "top", *options],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_a_moving_robot_is_shown_with_its_rates_and_retained_tokens(moving: Bench) -> None:
    moving.wait_until(lambda: float(moving.robot.status.get("command_rate_hz", 0)) > 10, "diagnostics")
    shown = top("--once", "--json")
    assert shown.returncode == 0, shown.stderr
    *view, last = shown.stdout.splitlines()
    snapshot = json.loads(last)
    assert (snapshot["node"], snapshot["state"], snapshot["instruction"]) == (
        "/lightvla_policy",
        "acting",
        "go",
    )
    assert snapshot["level"] == "ok" and snapshot["active"] and snapshot["enabled"]
    assert all(snapshot["rates_hz"][name] > 5.0 for name in ("inference", "action", "command", "chunk"))
    assert 2 <= snapshot["retained"]["last"] <= snapshot["num_visual_tokens"] == 32
    assert {"received", "paired", "vision", "scheduled", "published"} <= set(snapshot["latencies_ms"])
    assert snapshot["counters"]["ticks"] >= snapshot["counters"]["move"] > 0
    assert view[0].startswith(" ACTING ")
    assert "\x1b" not in shown.stdout, "no colour where there is no terminal"


@pytest.mark.parametrize("how", ["q", "SIGINT", "SIGTERM"])
def test_the_live_view_ends_and_leaves_the_terminal_as_it_was(moving: Bench, how: str) -> None:
    keyboard, terminal = pty.openpty()
    before = termios.tcgetattr(terminal)
    live = subprocess.Popen(
        [sys.executable, "-c", COMMAND, "top"],
        stdin=terminal,
        stdout=terminal,
        stderr=subprocess.PIPE,
        env={**os.environ, "TERM": "xterm"},
    )
    seen = b""
    try:
        while b"ACTING" not in seen:
            assert select.select([keyboard], [], [], TIMEOUT_S)[0], "the view says nothing"
            seen += os.read(keyboard, 4096)
        assert termios.tcgetattr(terminal) != before, "keys are read one by one"
        if how == "q":
            os.write(keyboard, b"q")
        else:
            live.send_signal(signal.Signals[how])
        assert live.wait(TIMEOUT_S) == 0, live.communicate()
        assert termios.tcgetattr(terminal) == before
    finally:
        live.kill()
        live.communicate()
        os.close(keyboard)
        os.close(terminal)


def test_everything_the_node_says_is_known(moving: Bench) -> None:
    moving.wait_until(lambda: "published_p50_ms" in moving.robot.status, "diagnostics")
    snapshot = json.loads(top("--json").stdout.splitlines()[-1])
    assert snapshot["other"] == {}


def test_a_stop_is_shown_with_its_reason_and_message(moving: Bench) -> None:
    moving.robot.cameras.discard("wrist")
    moving.wait_for_stop("stale:wrist")
    moving.wait_until(lambda: moving.robot.status.get("stop_reason") == "stale:wrist", "diagnostics")
    view = top("--once", "--node", "/lightvla_policy").stdout
    assert view.splitlines()[0].startswith(" STOPPED  stale:wrist")
    assert "/camera/wrist/image" in view


def test_a_node_that_cannot_be_configured_is_shown_with_the_reason(make_bench: MakeBench) -> None:
    def refuse(config: object) -> SteadyPolicy:
        raise RuntimeError("no such engine")

    bench = make_bench(refuse)
    assert not bench.configure()
    bench.wait_until(lambda: "no such engine" in bench.robot.status.get("stop_reason", ""), "diagnostics")
    snapshot = json.loads(top("--json").stdout.splitlines()[-1])
    assert (snapshot["state"], snapshot["level"]) == ("stopped", "error")
    assert "no such engine" in snapshot["message"]


def test_without_a_node_it_fails_and_says_what_to_start() -> None:
    shown = top("--once", "--timeout-s", "1.5")
    assert shown.returncode == 1
    assert shown.stdout == ""
    assert "no diagnostics of a policy node" in shown.stderr
    assert "ros2 launch lightvla_ros policy.launch.py" in shown.stderr


def test_another_node_than_the_wanted_one_is_named(moving: Bench) -> None:
    shown = top("--once", "--node", "/left/lightvla_policy", "--timeout-s", "4")
    assert shown.returncode == 1
    assert "--node /lightvla_policy" in shown.stderr


@pytest.mark.parametrize(
    ("code", "level"),
    [
        *((code, DiagnosticStatus.ERROR) for code in ("fault", "chunk", "worker", "estop", "instruction")),
        *((code, DiagnosticStatus.ERROR) for code in ("two_publishers:wrist", "two_commanders", "refused:x")),
        *((code, DiagnosticStatus.OK) for code in ("no_instruction", "disabled", "awaiting_chunk")),
        *((code, DiagnosticStatus.WARN) for code in ("stale:wrist", "no_action", "clock_jump", "skew")),
    ],
)
def test_a_stop_has_the_level_of_what_it_asks_of_a_person(code: str, level: bytes) -> None:
    loop = ControlLoop(config=NodeConfig(), spec=SteadyPolicy().spec, check_instruction=lambda text: None)
    loop.start(0)
    loop.block(code, "why")
    loop.tick(0, 0)
    status = running_status(loop, {})
    assert (status.level, status.message) == (level, "why")


def test_an_inactive_node_is_in_order() -> None:
    loop = ControlLoop(config=NodeConfig(), spec=SteadyPolicy().spec, check_instruction=lambda text: None)
    assert running_status(loop, {}).level == DiagnosticStatus.OK


@pytest.mark.parametrize(
    ("arguments", "name"),
    [([], "lightvla_policy: policy"), (["-r", "__ns:=/left"], "left/lightvla_policy: policy")],
)
def test_the_status_has_the_full_name_of_the_node(arguments: list[str], name: str) -> None:
    """Several robots share /diagnostics."""
    context = Context()
    rclpy.init(context=context, args=["--ros-args", *arguments] if arguments else [])
    node = rclpy.create_node("lightvla_policy", context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    heard: list[str] = []
    node.create_subscription(
        DiagnosticArray, "/diagnostics", lambda message: heard.append(message.status[0].name), 10
    )
    diagnostics = Diagnostics(node)
    for _ in range(50):
        diagnostics.publish(idle_status("not configured", is_error=False))
        executor.spin_once(timeout_sec=0.2)
        if heard:
            break
    executor.shutdown()
    node.destroy_node()
    rclpy.shutdown(context=context)
    assert heard[0] == name
