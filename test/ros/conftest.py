"""ROS tests run in a domain of their own, so that no other graph on the machine is seen or disturbed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: pip install 'lightvla_ros[ros]', or source a ROS 2 set-up")
os.environ.setdefault("ROS_DOMAIN_ID", str(1 + os.getpid() % 100))
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"

from harness import Bench, SteadyPolicy  # noqa: E402  # only where rclpy is


@pytest.fixture
def make_bench() -> Iterator[Callable[..., Bench]]:
    """Make a running bench; keyword arguments are the policy and parameters (dots as __)."""
    benches: list[Bench] = []

    def make(policy: Any = None, **values: object) -> Bench:
        chosen = SteadyPolicy() if policy is None else policy
        parameters = {name.replace("__", "."): value for name, value in values.items()}
        bench = Bench(chosen if callable(chosen) else lambda config: chosen, parameters)
        benches.append(bench)
        bench.spin()
        return bench

    yield make
    for bench in benches:
        bench.close()


@pytest.fixture
def moving(make_bench: Callable[..., Bench]) -> Bench:
    """A bench whose robot moves."""
    bench = make_bench(enable_actuation=True)
    bench.activate()
    bench.robot.instruct("go")
    bench.wait_for_motion()
    return bench
