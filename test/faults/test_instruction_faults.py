"""Instructions come far faster than inference: none is mixed up with another, and nothing grows."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from graph import Graph

pytestmark = pytest.mark.slow

# Of node and inference together, KiB; a leak of one message per instruction would show.
MAX_GROWTH_KIB = 5_000


@pytest.fixture(scope="module")
def started(make_graph: Callable[[], Graph]) -> Graph:
    """A node that says in every command which instruction it is of: 2000 x the speed, m/s, is its number."""
    graph = make_graph()
    node = graph.start(spoiled=True, silence_after_s=10.0)
    graph.wait_for_reason("no_instruction")
    node.fault("echo")
    graph.robot.instruct("go 1")
    graph.wait_for_motion()
    return graph


def numbers(graph: Graph, begun: int) -> list[int]:
    """The instructions that the commands since the `begun`th act on; holds act on none."""
    return [round(2000 * speed) for speed in graph.robot.speeds[begun:] if speed != 0.0]


def test_a_flood_of_instructions_delays_no_command_and_the_last_one_counts(started: Graph) -> None:
    begun, before = time.monotonic(), len(started.robot.commands)
    for number in range(1000):
        started.robot.instruct(f"go {1 + number % 900}")
        time.sleep(max(0.0, begun + number / 500 - time.monotonic()))
    started.robot.instruct("go 999")
    started.wait_until(lambda: numbers(started, before)[-1:] == [999], "the last instruction")
    started.assert_on_time(begun, time.monotonic())
    started.assert_moves(1.0)
    assert set(numbers(started, len(started.robot.commands) - 10)) == {999}


def test_a_thousand_changes_of_the_instruction(started: Graph) -> None:
    (node,) = started.nodes
    started.robot.instruct("go 1")
    started.wait_until(lambda: numbers(started, 0)[-1:] == [1], "the first instruction")
    epoch = int(started.next_status()["epoch"])
    begun, before, usage = time.monotonic(), len(started.robot.commands), node.usage()
    for number in range(2, 1002):
        started.robot.instruct(f"go {number}")
        if number % 20:
            time.sleep(0.004)
        else:
            started.wait_until(lambda n=number: numbers(started, before)[-1:] == [n], f"instruction {number}")
    started.wait_until(lambda: numbers(started, before)[-1:] == [1001], "the last instruction")
    started.assert_on_time(begun, time.monotonic())
    heard = numbers(started, before)
    assert heard == sorted(heard), "a command of an older instruction after one of a newer"
    assert len(set(heard)) > 50
    # The topic keeps one message, so those that came too fast were never instructions.
    assert int(started.next_status()["epoch"]) - epoch > 100
    growth, threads = (after - earlier for after, earlier in zip(node.usage(), usage, strict=True))
    assert growth < MAX_GROWTH_KIB
    assert threads == 0
