"""What the robot sees when inference is killed or hangs: it stands still, then goes on by itself."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest
from harness import Bench

from lightvla_ros.nodes.policy_node import load_configured_policy
from lightvla_ros.worker.remote_policy import RemotePolicy

PARAMETERS = {
    "engine": "mini",
    "num_threads": 1,
    "enable_actuation": True,
    "worker.timeout_s": 1.0,
    "silence_after_s": 0.4,
}
# Far less than the process hangs, far more than a busy machine delays a tick.
MAX_GAP_S = 0.5


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench(load_configured_policy, PARAMETERS)
    bench.spin()
    bench.activate()
    bench.robot.instruct("pick up the red cube and place it in the basket")
    bench.wait_for_motion()
    yield bench
    bench.close()


def inference(bench: Bench) -> RemotePolicy:
    assert bench.node.session is not None
    policy = bench.node.session._policy
    assert isinstance(policy, RemotePolicy)
    return policy


def test_a_killed_inference_process_stops_the_robot_until_it_is_back(bench: Bench) -> None:
    policy = inference(bench)
    assert policy.pid is not None
    os.kill(policy.pid, signal.SIGKILL)
    bench.wait_for_stop("worker")
    assert "exit code -9" in bench.message
    before = len(bench.robot.moves)
    bench.wait_until(lambda: policy.restarts == 1, "the restart")
    bench.wait_for_motion()
    assert len(bench.robot.moves) > before
    assert bench.reason is None


def test_a_hung_inference_process_never_delays_a_command(bench: Bench) -> None:
    policy = inference(bench)
    hung = policy.pid
    assert hung is not None
    stopped_at = time.monotonic()
    os.kill(hung, signal.SIGSTOP)
    bench.wait_for_stop("worker")
    assert "no answer for 1 s" in bench.message
    # The chunk in hand is played to its end, then zeros are held for 0.4 s, then there is silence.
    arrivals = [at for at, _ in bench.robot.commands if at > stopped_at]
    gaps = [later - earlier for earlier, later in zip(arrivals, arrivals[1:], strict=False)]
    assert len(arrivals) > 5
    assert max(gaps) < MAX_GAP_S
    last = bench.robot.commands[-1][1].twist
    assert last.linear.x == last.linear.y == last.linear.z == 0.0
    bench.wait_for_motion()
    assert policy.pid != hung
