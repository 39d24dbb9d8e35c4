"""Inference ends, hangs, crawls or gives nonsense: commands keep time, and the robot stands still for it."""

from __future__ import annotations

import os
import signal
import time

import pytest
from graph import INSTRUCTION, LATE_S, SILENCE_AFTER_S, Graph, NodeProcess

pytestmark = pytest.mark.slow

HANG_S = 5.0
# The steps of a chunk and then some: from the fault to the last motion where nothing else stops it.
CHUNK_S = 0.4 + LATE_S


def killed(node: NodeProcess) -> int:
    """Kill the inference process; returns what its process id was."""
    pid = node.inference_pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    return pid


def test_inference_that_is_killed_while_the_robot_moves(graph: Graph) -> None:
    node = graph.start_moving()
    begun, pid = time.monotonic(), killed(node)
    graph.wait_until(lambda: "motion stopped (worker)" in node.log, "the stop")
    assert "exit code -9" in node.log
    assert graph.robot.moves[-1] - begun < CHUNK_S
    graph.wait_for_motion()
    assert node.inference_pid not in (None, pid)
    assert graph.next_status()["worker_restarts"] == "1"


def test_inference_that_is_killed_while_nothing_is_asked_of_it(graph: Graph) -> None:
    node = graph.start()
    graph.wait_for_reason("no_instruction")
    pid = killed(node)
    time.sleep(1.0)
    assert graph.robot.commands == []
    graph.robot.instruct(INSTRUCTION)
    graph.wait_for_motion()
    assert node.inference_pid not in (None, pid)


def test_inference_that_hangs_is_killed_and_commands_go_on_meanwhile(graph: Graph) -> None:
    node = graph.start_moving(worker__timeout_s=1.0, silence_after_s=10.0)
    pid = node.inference_pid
    assert pid is not None
    begun = time.monotonic()
    os.kill(pid, signal.SIGSTOP)
    graph.wait_for_reason("worker")
    assert "no answer for 1 s" in node.log
    assert graph.robot.moves[-1] - begun < CHUNK_S
    graph.wait_for_motion()
    graph.assert_on_time(begun, time.monotonic())
    assert node.inference_pid not in (None, pid)


@pytest.mark.parametrize("silence_after_s", [10.0, SILENCE_AFTER_S])
def test_inference_that_hangs_for_seconds_and_goes_on(graph: Graph, silence_after_s: float) -> None:
    node = graph.start_moving(worker__timeout_s=20.0, silence_after_s=silence_after_s)
    pid = node.inference_pid
    assert pid is not None
    begun = time.monotonic()
    os.kill(pid, signal.SIGSTOP)
    graph.wait_for_reason("no_action")
    assert graph.robot.moves[-1] - begun < CHUNK_S
    if silence_after_s == SILENCE_AFTER_S:
        graph.assert_holds_then_silence(begun, CHUNK_S)
    else:
        time.sleep(max(0.0, begun + HANG_S - time.monotonic()))
        graph.assert_on_time(begun, time.monotonic())
        assert graph.robot.speeds[-1] == 0.0
    os.kill(pid, signal.SIGCONT)
    graph.wait_for_motion()
    assert node.inference_pid == pid


def test_inference_that_never_lets_go_of_the_interpreter_for_seconds(graph: Graph) -> None:
    node = graph.start_moving(spoiled=True, worker__timeout_s=20.0, silence_after_s=10.0)
    begun, before = time.monotonic(), len(graph.robot.chunks)
    node.fault(f"hold_lock {HANG_S}")
    graph.wait_for_reason("no_action")
    assert len(graph.robot.chunks) > before
    time.sleep(max(0.0, begun + HANG_S - 1.0 - time.monotonic()))
    graph.assert_still(0.3)
    graph.assert_on_time(begun, time.monotonic())
    graph.wait_for_motion()
    assert time.monotonic() - begun > HANG_S


def test_inference_in_the_node_that_holds_everything_up_goes_on_by_itself(graph: Graph) -> None:
    node = graph.start_moving(spoiled=True, worker__separate_process=False)
    assert node.inference_pid is None
    node.fault("hold_lock 2")
    graph.wait_until(lambda: time.monotonic() - graph.robot.commands[-1][0] > 1.0, "a gap")
    graph.wait_for_motion()
    graph.assert_moves(1.0)
    assert graph.next_status()["stop_reason"] == ""


def test_inference_that_is_slow_and_still_in_time(graph: Graph) -> None:
    """Ten times what the embedded policy takes; twice that is well below a chunk, also on a busy machine."""
    node = graph.start_moving(spoiled=True)
    node.fault("late 0.12")
    graph.assert_moves(2.0)
    assert graph.next_status()["stop_reason"] == ""


def test_inference_slower_than_its_chunks_are_long(graph: Graph) -> None:
    node = graph.start_moving(spoiled=True)
    node.fault("late 0.8")
    graph.assert_stops("no_action", within_s=CHUNK_S)
    node.fault("")
    graph.wait_for_motion()


@pytest.mark.parametrize("fault", ["nan", "short"])
def test_inference_that_gives_nonsense_stops_until_reset(graph: Graph, fault: str) -> None:
    node = graph.start_moving(spoiled=True)
    node.fault(fault)
    graph.assert_stops("chunk")
    node.fault("")
    graph.assert_still()
    graph.reset()
    graph.wait_for_motion()
