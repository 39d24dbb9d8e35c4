"""Period error of the command publisher beside an rclpy timer: `python bench/jitter.py [--seconds S]`.

A process like the policy node publishes TwistStamped, while one of its threads hands two 640x480
images to the inference process, which answers one after the other and so keeps a core busy. In one run:

- publisher_normal and rclpy_timer, side by side: this package's thread without any priority but with the
  node's short slices, and a timer on the single-threaded executor of the same process;
- publisher: this package's thread with SCHED_FIFO, in a process lifted as the node lifts itself.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from geometry_msgs.msg import TwistStamped
from numpy.typing import NDArray
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from tqdm import tqdm

from lightvla_ros.core.observation import Observation
from lightvla_ros.core.pacing import FixedRateThread
from lightvla_ros.core.realtime import lift_process, shorten_slice
from lightvla_ros.worker.remote_policy import RemotePolicy

RATES_HZ = (20, 50, 100)
PRIORITY = 20
WARM_UP_S = 1.0
HEIGHT, WIDTH = 480, 640


class Candidate:
    """Something that publishes periodically; notes when it did."""

    def __init__(self, node: Node, name: str) -> None:
        self.name = name
        self.times_ns: list[int] = []
        self._publisher = node.create_publisher(TwistStamped, name, 10)
        self._message = TwistStamped()

    def tick(self) -> None:
        """Publish one command."""
        now_ns = time.monotonic_ns()
        stamp = self._message.header.stamp
        stamp.sec, stamp.nanosec = divmod(now_ns, 1_000_000_000)
        self._publisher.publish(self._message)
        self.times_ns.append(now_ns)


@contextmanager
def inference(engine: str) -> Iterator[Callable[[], int]]:
    """Keep the inference process busy; yields how many chunks it has answered."""
    policy = RemotePolicy({"path": engine, "num_threads": 1}, check_instruction=str)
    rng = np.random.default_rng(0)
    images = {n: rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8) for n in policy.spec.camera_names}
    seen = Observation(
        images=images, proprio=np.zeros(policy.spec.proprio_dim), instruction="pick up", stamp_ns=0
    )
    stop, answered = threading.Event(), [0]

    def ask() -> None:
        while not stop.is_set():
            policy.predict_chunk(seen)
            answered[0] += 1

    thread = threading.Thread(target=ask, name="inference")
    thread.start()
    try:
        yield lambda: answered[0]
    finally:
        stop.set()
        thread.join()
        policy.close()


def run_at(rate_hz: int, seconds: float, *, realtime: bool) -> dict[str, NDArray[np.float64]]:
    """Run the candidates with or without real-time priority; returns the periods of each, ms."""
    node = Node(f"jitter_{rate_hz}hz")
    ours = Candidate(node, "publisher" if realtime else "publisher_normal")
    candidates = [ours]
    if not realtime:
        timer = Candidate(node, "rclpy_timer")
        node.create_timer(1.0 / rate_hz, timer.tick)
        candidates.append(timer)
    thread = FixedRateThread(
        name=ours.name,
        rate_hz=rate_hz,
        tick=ours.tick,
        on_error=fail,
        priority=PRIORITY if realtime else 0,
        on_unprivileged=warn,
    )
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    spinner = threading.Thread(target=executor.spin, name="executor")
    spinner.start()
    thread.start()
    for _ in tqdm(range(round(seconds + WARM_UP_S)), desc=f"{ours.name} {rate_hz} Hz", unit="s", leave=False):
        time.sleep(1.0)
    thread.stop()
    executor.shutdown()
    spinner.join()
    node.destroy_node()
    skipped = round(WARM_UP_S * rate_hz)
    return {c.name: np.diff(c.times_ns[skipped:]) / 1e6 for c in candidates}


def warn(refusal: str) -> None:
    """Say why there was no real-time priority."""
    print(f"publisher: {refusal}", file=sys.stderr)


def fail(error: Exception) -> None:
    """A tick that raises spoils the measurement."""
    raise error


def summarise(periods_ms: NDArray[np.float64], rate_hz: int) -> dict[str, Any]:
    """Condense the periods of one candidate."""
    period_ms = 1e3 / rate_hz
    error_ms = np.abs(periods_ms - period_ms)
    p50, p99 = np.percentile(error_ms, (50, 99))
    missed = np.maximum(0, np.rint(periods_ms / period_ms) - 1).sum()
    return {
        "ticks": len(periods_ms),
        "p50_ms": round(float(p50), 4),
        "p99_ms": round(float(p99), 4),
        "max_ms": round(float(error_ms.max()), 4),
        "missed": int(missed),
    }


def plot(measured: dict[int, dict[str, NDArray[np.float64]]], path: Path) -> None:
    """Draw the distribution of the period error of every candidate at every rate."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, len(measured), figsize=(10, 3.2), sharey=True, layout="constrained")
    bins = np.geomspace(1e-3, 100, 61)
    labels = {
        "publisher": "publisher, SCHED_FIFO",
        "publisher_normal": "publisher, no priority",
        "rclpy_timer": "rclpy timer",
    }
    for axis, (rate_hz, candidates) in zip(np.atleast_1d(axes), measured.items(), strict=True):
        for name, periods_ms in candidates.items():
            error_ms = np.maximum(np.abs(periods_ms - 1e3 / rate_hz), bins[0])
            weights = np.full(len(error_ms), 100 / len(error_ms))
            axis.hist(error_ms, bins, weights=weights, histtype="step", linewidth=1.6, label=labels[name])
        axis.set(xscale="log", yscale="log", title=f"{rate_hz} Hz", xlabel="period error / ms")
        axis.grid(alpha=0.3)
    np.atleast_1d(axes)[0].set_ylabel("share of ticks / %")
    figure.legend(*np.atleast_1d(axes)[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)


def main() -> None:
    """Measure, then print the table or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="per rate (default: %(default)s)")
    parser.add_argument("--engine", default="mini", help="what the inference process runs (default: mini)")
    parser.add_argument("--histogram", type=Path, help="write a picture of the distributions")
    parser.add_argument("--json", action="store_true", help="end with one JSON object")
    arguments = parser.parse_args()
    rclpy.init()
    shorten_slice()
    with inference(arguments.engine) as answered:
        begun = time.monotonic()
        measured = {rate_hz: run_at(rate_hz, arguments.seconds, realtime=False) for rate_hz in RATES_HZ}
        lift_process(PRIORITY - 1)
        for rate_hz in RATES_HZ:
            measured[rate_hz] |= run_at(rate_hz, arguments.seconds, realtime=True)
        chunks_hz = answered() / (time.monotonic() - begun)
    rclpy.shutdown()
    if arguments.histogram:
        plot(measured, arguments.histogram)
    summary: dict[str, Any] = {
        name: {str(rate): summarise(periods[name], rate) for rate, periods in measured.items()}
        for name in measured[RATES_HZ[0]]
    }
    print(f"period error while inference answers {chunks_hz:.0f} chunks/s on {os.cpu_count()} cores")
    print(f"{'':<18}{'rate':>7}{'ticks':>8}{'p50 ms':>9}{'p99 ms':>9}{'max ms':>9}{'missed':>8}")
    for name, rates in summary.items():
        for rate, row in rates.items():
            cells = f"{row['p50_ms']:>9.3f}{row['p99_ms']:>9.3f}{row['max_ms']:>9.3f}{row['missed']:>8}"
            print(f"{name:<18}{rate:>4} Hz{row['ticks']:>8}{cells}")
    if arguments.json:
        print(json.dumps({**summary, "chunks_hz": round(chunks_hz, 1)}))


if __name__ == "__main__":
    main()
