"""Fault tests: the policy node in its own process, in a ROS domain of its own, beside a robot that fails."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: pip install 'lightvla_ros[ros]', or source a ROS 2 set-up")
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
sys.path.insert(0, str(Path(__file__).parents[1] / "ros"))

from graph import Graph  # noqa: E402  # only where rclpy is

# A killed process haunts its domain for seconds, so each graph has one of its own.
_domains = itertools.count(os.getpid())


@pytest.fixture(scope="module")
def make_graph(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Graph]]:
    """Make graphs that end with the module."""
    graphs: list[Graph] = []

    def make() -> Graph:
        graphs.append(Graph(1 + next(_domains) % 100, tmp_path_factory.mktemp("graph")))
        return graphs[-1]

    yield make
    for graph in graphs:
        graph.close()


@pytest.fixture
def graph(make_graph: Callable[[], Graph]) -> Iterator[Graph]:
    """A graph of one test, with nothing but the robot in it."""
    graph = make_graph()
    yield graph
    graph.close()
