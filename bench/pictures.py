"""What masks and overlays cost the command: `python bench/pictures.py [--seconds S] [--json]`.

Two 640x480 cameras at 30 Hz, a policy node that infers from every pair, commands at 50 Hz. In turns, another
process listens to nothing, to the masks, and to masks and overlays of both cameras. Told of each: how long
after its deadline a command was out, by the node's own clock, and how many pictures a second came through.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from node_overhead import INSTRUCTION, PROFILE, SETTLING_S, robot, wait_until

from lightvla_ros.core.dds import profile_environment

COMMAND_RATE_HZ = 50.0
ROUNDS = 3
CAMERAS = ("third_person", "wrist")
MASKS = [f"/policy/retained_tokens/{camera}" for camera in CAMERAS]
LISTENED = {
    "nobody": [],
    "masks": MASKS,
    "masks and overlays": [*MASKS, *(f"/policy/overlay/{c}" for c in CAMERAS)],
}
# The policy node, which beside its work prints when each command was out, ns of the monotonic clock, and how
# long after its deadline, ms.
NODE_PROGRAM = """
import sys, time
from lightvla_ros.nodes import policy_node, session

class Timed(session.FixedRateThread):
    def __init__(self, *, name, tick, **options):
        def timed():
            begun_ns = time.monotonic_ns()
            tick()
            ended_ns = time.monotonic_ns()
            if name == "command":
                print(ended_ns, self.late_ms + (ended_ns - begun_ns) / 1e6, flush=True)

        super().__init__(name=name, tick=timed, **options)
        self.lateness_ms = self

    def add(self, late_ms):
        self.late_ms = late_ms

session.FixedRateThread = Timed
sys.exit(policy_node.main(sys.argv))
"""
# Prints, when it is told to end, how many pictures a second came of each topic.
LISTENER_PROGRAM = """
import signal, sys, time
import rclpy
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import Image

heard = []
rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
node = rclpy.create_node("listener")
for topic in sys.argv[1:]:
    node.create_subscription(Image, topic, lambda data: heard.append(time.monotonic()), 1, raw=True)
ending = []
signal.signal(signal.SIGTERM, lambda *_: ending.append(1))
while not ending:
    rclpy.spin_once(node, timeout_sec=0.1)
print((len(heard) - 1) / (heard[-1] - heard[0]) / len(sys.argv[1:]) if heard else 0)
"""


@contextmanager
def policy_node(engine: str) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """Run the policy node, acting; yields its process and what it prints."""
    parameters = {
        "engine": engine,
        "num_threads": 1,
        "auto_activate": "true",
        "enable_actuation": "true",
        "command_rate_hz": COMMAND_RATE_HZ,
        "schedule.execution_horizon": 1,
    }
    arguments = [item for name, value in parameters.items() for item in ("-p", f"{name}:={value}")]
    with tempfile.NamedTemporaryFile() as output:
        node = subprocess.Popen([sys.executable, "-c", NODE_PROGRAM, "--ros-args", *arguments], stdout=output)
        try:
            yield node, Path(output.name)
        finally:
            node.terminate()
            node.wait()


def listen(topics: list[str], seconds: float) -> tuple[int, int, float]:
    """Listen for a while.

    Returns:
        From when to when, ns of the monotonic clock, and pictures per second and topic.
    """
    listener = subprocess.Popen([sys.executable, "-c", LISTENER_PROGRAM, *topics], stdout=subprocess.PIPE)
    time.sleep(SETTLING_S)
    begun_ns = time.monotonic_ns()
    time.sleep(seconds)
    ended_ns = time.monotonic_ns()
    listener.terminate()
    return begun_ns, ended_ns, float(listener.communicate()[0])


def measure(engine: str, seconds: float) -> dict[str, dict[str, float]]:
    """Measure every kind of listener, in turns, in one process of the node."""
    spans: dict[str, list[tuple[int, int]]] = {name: [] for name in LISTENED}
    rates: dict[str, list[float]] = {name: [] for name in LISTENED}
    with robot() as bench, policy_node(engine) as (node, output):
        wait_until(lambda: bench.status.get("active") == "True", node, "an active node")
        bench.instruct(INSTRUCTION)
        wait_until(lambda: bench.answered_ns, node, "a chunk")
        time.sleep(SETTLING_S)
        for _ in range(ROUNDS):
            for name, topics in LISTENED.items():
                begun_ns, ended_ns, rate_hz = listen(topics, seconds)
                spans[name].append((begun_ns, ended_ns))
                rates[name].append(rate_hz)
        inferences_hz = float(bench.status["inference_rate_hz"])
        ticks = np.array([line.split() for line in output.read_text().splitlines()[:-1]], dtype=float)
    rows = {}
    for name in LISTENED:
        inside = np.any(
            [(begun <= ticks[:, 0]) & (ticks[:, 0] <= ended) for begun, ended in spans[name]], axis=0
        )
        late_ms = ticks[inside, 1]
        rows[name] = {
            "commands": len(late_ms),
            **{f"p{rank}_ms": float(np.percentile(late_ms, rank)) for rank in (50, 99)},
            "max_ms": float(late_ms.max()),
            "pictures_hz": float(np.mean(rates[name])),
            "inferences_hz": inferences_hz,
        }
    return rows


def main() -> None:
    """Measure, then print the table or one JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=10.0, help="per turn (default: %(default)s)")
    parser.add_argument("--engine", default="mini", help="what the node runs (default: mini)")
    parser.add_argument("--json", action="store_true", help="end with one JSON object")
    arguments = parser.parse_args()
    os.environ.update(profile_environment(str(PROFILE), os.environ))
    rows = measure(arguments.engine, arguments.seconds)
    print(f"{'listening to':<22}{'p50 ms':>8}{'p99 ms':>8}{'max ms':>8}{'pictures/s':>12}{'commands':>10}")
    for name, row in rows.items():
        figures = (
            f"{row['p50_ms']:>8.2f}{row['p99_ms']:>8.2f}{row['max_ms']:>8.2f}{row['pictures_hz']:>12.1f}"
        )
        print(f"{name:<22}{figures}{row['commands']:>10}")
    if arguments.json:
        print(json.dumps({name: {k: round(v, 3) for k, v in row.items()} for name, row in rows.items()}))


if __name__ == "__main__":
    main()
