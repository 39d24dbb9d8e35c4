"""Runs the simulated world and the policy node for minutes: `python bench/soak.py [--seconds S]`.

Both are processes of their own; this one only listens, changes the instruction every few seconds and
reads /proc. It says whether memory grows, how regular commands are and whether one was lost, and ends
with exit status 1 when memory grew by 5 MB or more, a tick was lost, inference was restarted or the
node logged an error.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import TwistStamped
from numpy.typing import NDArray
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from std_msgs.msg import String
from tqdm import tqdm

from lightvla_ros.commands._processes import Child, running
from lightvla_ros.nodes.qos import LATCHED
from lightvla_ros.nodes.sim_node import SIM_NODE_NAME

SIM, POLICY = "lightvla_ros.nodes.sim_node", "lightvla_ros.nodes.policy_node"
PARAMETERS = ("auto_activate:=true", "enable_actuation:=true", "num_threads:=1")
RATE_HZ = 20.0
WARM_UP_S = 60.0
MAX_GROWTH_MB = 5.0
START_TIMEOUT_S = 60.0
HISTOGRAM_MS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 25.0)


class Listener(Node):
    """Hears what the policy node says and tells it what to do."""

    def __init__(self) -> None:
        super().__init__("soak")
        self.arrivals_ns: list[int] = []
        self.stamps_ns: list[int] = []
        self.instructions: list[str] = []
        self.status: dict[str, str] = {}
        self._instruction = self.create_publisher(String, "/instruction", LATCHED)
        self.create_subscription(TwistStamped, "/policy/command", self._on_command, 100)
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)
        self.create_subscription(String, f"/{SIM_NODE_NAME}/status", self._on_world, LATCHED)
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self)

    def instruct(self, text: str) -> None:
        """Publish an instruction."""
        self._instruction.publish(String(data=text))

    def listen(self, seconds: float, *, until: Callable[[], object] = lambda: False) -> bool:
        """Take messages in for a while; returns whether `until` came true, which ends it."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._executor.spin_once(timeout_sec=0.05)
            if until():
                return True
        return False

    def forget(self) -> None:
        """Begin to measure."""
        self.arrivals_ns.clear()
        self.stamps_ns.clear()

    def _on_command(self, message: TwistStamped) -> None:
        self.arrivals_ns.append(time.monotonic_ns())
        self.stamps_ns.append(message.header.stamp.sec * 10**9 + message.header.stamp.nanosec)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        self.status = {value.key: value.value for value in message.status[0].values}

    def _on_world(self, message: String) -> None:
        self.instructions = self.instructions or json.loads(message.data)["instructions"]


@dataclass
class Memory:
    """Resident memory of the policy node and its inference process, sampled once a second."""

    pid: int
    samples_mb: dict[str, list[float]] = field(default_factory=lambda: {"node": [], "inference": []})
    inference_pids: set[int] = field(default_factory=set)

    def sample(self) -> None:
        """Read /proc."""
        child = inference_pid(self.pid)
        if child is None:
            return
        self.inference_pids.add(child)
        for name, pid in (("node", self.pid), ("inference", child)):
            pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
            self.samples_mb[name].append(pages * os.sysconf("SC_PAGE_SIZE") / 1e6)

    def growth(self) -> dict[str, dict[str, float]]:
        """Level, difference of the ends and slope of the least squares line, for each process."""
        result = {}
        for name, samples in self.samples_mb.items():
            tenth = max(1, len(samples) // 10)
            first, last = np.median(samples[:tenth]), np.median(samples[-tenth:])
            slope = np.polyfit(np.arange(len(samples)), samples, 1)[0] * 3600
            result[name] = {
                "mb": round(float(last), 1),
                "growth_mb": round(float(last - first), 2),
                "slope_mb_per_h": round(float(slope), 1),
            }
        return result


def inference_pid(pid: int) -> int | None:
    """Return the child of a process; None while it has none."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        children = (thread / "children").read_text().split()
        if children:
            return int(children[0])
    return None


def start(listener: Listener, children: dict[str, Child]) -> None:
    """Wait until the robot moves."""

    def moves() -> bool:
        for child in children.values():
            child.check()
        return len(listener.arrivals_ns) > 2 * RATE_HZ

    for condition, name in ((lambda: listener.instructions, SIM), (moves, POLICY)):
        if not listener.listen(START_TIMEOUT_S, until=condition):
            raise children[name].failure(f"nothing for {START_TIMEOUT_S:g} s; diagnostics {listener.status}")
        listener.instruct(listener.instructions[0])


def soak(
    listener: Listener, memory: Memory, *, seconds: float, warm_up_s: float, change_every_s: float
) -> None:
    """Change instructions and listen; memory is sampled after the warm-up."""
    instructions = itertools.cycle(listener.instructions)
    next_change_s = 0.0
    for second in tqdm(range(round(seconds)), unit="s", leave=False, disable=None):
        if second >= next_change_s:
            listener.instruct(next(instructions))
            next_change_s += change_every_s
        listener.listen(1.0)
        if second >= warm_up_s:
            memory.sample()


def regularity(times_ns: list[int]) -> dict[str, Any]:
    """Condense how far periods are off, and how many commands were left out.

    A late command is none that was left out: the period after it is as much too short.
    """
    periods_ms = np.diff(times_ns) / 1e6
    period_ms = 1e3 / RATE_HZ
    error_ms: NDArray[np.float64] = np.abs(periods_ms - period_ms)
    p50, p99 = np.percentile(error_ms, (50, 99))
    counts = np.histogram(error_ms, bins=(0.0, *HISTOGRAM_MS, np.inf))[0]
    return {
        "p50_ms": round(float(p50), 3),
        "p99_ms": round(float(p99), 3),
        "max_ms": round(float(error_ms.max()), 3),
        "histogram": {
            f"<{edge:g} ms": int(n) for edge, n in zip((*HISTOGRAM_MS, np.inf), counts, strict=True)
        },
        "left_out": round(float(periods_ms.sum()) / period_ms) - len(periods_ms),
    }


def report(listener: Listener, memory: Memory, log: str) -> dict[str, Any]:
    """Put together what was seen."""
    memory_of = memory.growth()
    sent = regularity(listener.stamps_ns)
    return {
        "commands": len(listener.stamps_ns),
        "lost_ticks": sent["left_out"],
        "ticks_missed": int(listener.status.get("ticks_missed", 0)),
        "growth_mb": round(sum(process["growth_mb"] for process in memory_of.values()), 2),
        "restarts": len(memory.inference_pids) - 1,
        "instructions": int(listener.status.get("epoch", 0)),
        "error_lines": [line for line in log.splitlines() if "[ERROR]" in line or "[FATAL]" in line],
        "memory": memory_of,
        "sent": sent,
        "received": regularity(listener.arrivals_ns),
    }


def failures(result: dict[str, Any]) -> list[str]:
    """Say what should not have been."""
    checks = {
        f"memory grew by {result['growth_mb']:g} MB": result["growth_mb"] >= MAX_GROWTH_MB,
        f"{result['lost_ticks']} commands were left out": result["lost_ticks"] > 0,
        f"the node missed {result['ticks_missed']} ticks": result["ticks_missed"] > 0,
        f"inference was restarted {result['restarts']} times": result["restarts"] > 0,
        f"{len(result['error_lines'])} errors in the log": bool(result["error_lines"]),
    }
    return [text for text, failed in checks.items() if failed]


def show(result: dict[str, Any], seconds: float) -> None:
    """Print the tables."""
    print(f"{seconds:g} s, {result['commands']} commands, epoch {result['instructions']}")
    print(f"{'memory':<12}{'MB':>9}{'growth MB':>11}{'MB/h':>9}")
    for name, row in result["memory"].items():
        print(f"{name:<12}{row['mb']:>9.1f}{row['growth_mb']:>11.2f}{row['slope_mb_per_h']:>9.1f}")
    sent, received = result["sent"], result["received"]
    print(f"{'period error':<14}{'sent':>9}{'received':>10}")
    for key in ("p50_ms", "p99_ms", "max_ms"):
        print(f"{key:<14}{sent[key]:>9.3f}{received[key]:>10.3f}")
    for edge, count in sent["histogram"].items():
        print(f"{edge:<14}{count:>9}{received['histogram'][edge]:>10}")
    print(f"lost ticks {result['lost_ticks']}, by the node's own count {result['ticks_missed']}")
    for line in result["error_lines"]:
        print(line)


def main() -> None:
    """Soak, then print the tables or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=600.0, help="how long (default: %(default)s)")
    parser.add_argument(
        "--change-every", type=float, default=7.0, help="seconds per instruction (default: %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="end with one JSON object")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        os.environ["ROS_LOG_DIR"] = directory
        rclpy.init()
        listener = Listener()
        nodes: dict[str, list[str]] = {
            SIM: [],
            POLICY: ["--ros-args", *itertools.chain(*(("-p", value) for value in PARAMETERS))],
        }
        with running(nodes, log_directory=Path(directory)) as children:
            start(listener, children)
            policy = children[POLICY]
            begun = len(policy.log.read_text())
            listener.forget()
            memory = Memory(policy.process.pid)
            soak(
                listener,
                memory,
                seconds=arguments.seconds,
                warm_up_s=min(WARM_UP_S, arguments.seconds / 2),
                change_every_s=arguments.change_every,
            )
            result = report(listener, memory, policy.log.read_text()[begun:])
        rclpy.shutdown()
    show(result, arguments.seconds)
    failed = failures(result)
    print("\n".join(f"failed: {text}" for text in failed) or "passed")
    if arguments.json:
        print(json.dumps({**result, "passed": not failed}))
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
