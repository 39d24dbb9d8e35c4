"""ROS time jumps back or ahead, or stands still: what was scheduled is dropped, and motion goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from graph import Graph

pytestmark = pytest.mark.slow

SECOND_NS = 1_000_000_000
START_NS = 1_000 * SECOND_NS


@pytest.fixture(scope="module")
def started(make_graph: Callable[[], Graph]) -> Graph:
    graph = make_graph()
    graph.robot.sim_time_ns = START_NS
    graph.start_moving_for_long(use_sim_time=True)
    return graph


@pytest.fixture
def moving(started: Graph) -> Iterator[Graph]:
    """A node that moves a simulated robot, before the test and after it."""
    started.wait_for_motion()
    yield started
    started.robot.heal()
    started.robot.timer.reset()
    started.wait_for_motion()


@pytest.mark.parametrize("jump_s", [-500, -2, 2, 500])
def test_time_that_jumps(moving: Graph, jump_s: int) -> None:
    jumps, epoch = int(moving.status().get("clock_jumps", 0)), int(moving.next_status()["epoch"])
    begun = len(moving.robot.commands)
    moving.robot.sim_time_ns += jump_s * SECOND_NS
    moving.wait_until(lambda: int(moving.status().get("clock_jumps", 0)) == jumps + 1, "the jump")
    moving.wait_for_motion()
    assert int(moving.next_status()["epoch"]) > epoch
    assert 0.0 in moving.robot.speeds[begun:], "it went on as if nothing had happened"
    assert moving.nodes[0].log.count("motion stopped (clock_jump)") >= 1


def test_time_that_stands_still(moving: Graph) -> None:
    moving.robot.timer.cancel()
    moving.assert_stops("clock_stopped")


def test_time_that_stands_still_while_images_come(moving: Graph) -> None:
    moving.robot.clock_stands = True
    moving.assert_stops("clock_stopped")
