"""What the policy node adds to the model's time, and what it costs: `python bench/node_overhead.py [--json]`.

This process plays the robot: two 640x480 cameras at 30 Hz, the arm's state and an instruction. The node is
the real one in a process of its own, and is measured from here, by its topics and by what the kernel counts:

- way: from just before the second image of a pair is published until a listener in a third process has
  received it, as the node has at about that time;
- overhead: from there to the arrival of the first chunk message with their stamp, less what preprocessing
  and model took for that chunk by their own account. So taking both images out of DDS counts, handing them
  to inference, the chunk topic's next tick (at most 1 ms) and the way back;
- CPU time of the node's process, inference not included, in percent of one core, without an instruction
  and while it acts, at the default rates.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseStamped
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, qos_profile_sensor_data
from sensor_msgs.msg import Image, JointState
from std_msgs.msg import String
from trajectory_msgs.msg import JointTrajectory

from lightvla_ros.core.dds import profile_environment
from lightvla_ros.core.pacing import FixedRateThread

PROFILE = Path(__file__).parents[1] / "config" / "fastdds.xml"
CAMERAS = ("third_person", "wrist")
CAMERA_RATE_HZ = 30.0
CHUNK_RATE_HZ = 1000.0
HEIGHT, WIDTH = 480, 640
# The policy node, which beside its work prints each chunk's stamp, ns, and how long its inference took, ms.
NODE_PROGRAM = """
import sys
from lightvla_ros.nodes import policy_node

def make_policy(config):
    policy = policy_node.load_configured_policy(config)
    answer = policy.predict_chunk

    def predict_chunk(observation):
        chunk = answer(observation)
        stages = {**chunk.timings_ms, "transport": 0.0}
        print(chunk.stamp_ns, sum(stages.values()), flush=True)
        return chunk

    policy.predict_chunk = predict_chunk
    return policy

sys.exit(policy_node.main(sys.argv, make_policy=make_policy))
"""
# Prints the stamp of each image of the second camera and when it was received, both ns; never decodes one.
LISTENER_PROGRAM = """
import struct
import rclpy
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image

def received(data, info):
    seconds, nanoseconds = struct.unpack_from("<iI", data, 4)
    print(seconds * 10**9 + nanoseconds, info["received_timestamp"], flush=True)

rclpy.init()
node = Node("listener")
node.create_subscription(Image, "camera/wrist/image", received, qos_profile_sensor_data, raw=True)
rclpy.spin(node)
"""
INSTRUCTION = "pick up the red cube and place it in the basket"
SETTLING_S = 3.0
TIMEOUT_S = 120.0


class Robot(Node):
    """Cameras and state at a fixed rate, an instruction when asked, and an ear for what comes back."""

    def __init__(self) -> None:
        super().__init__("robot")
        pixels = np.random.default_rng(0).integers(0, 256, HEIGHT * WIDTH * 3, dtype=np.uint8)
        self._image = Image(height=HEIGHT, width=WIDTH, step=3 * WIDTH, encoding="rgb8")
        self._image.data = array("B", pixels.tobytes())
        self._pose, self._joints = PoseStamped(), JointState(name=["finger_left", "finger_right"])
        self._pose.pose.orientation.w = 1.0
        self._joints.position = [0.04, -0.04]
        self._messages = [
            (self.create_publisher(type(message), topic, qos_profile_sensor_data), message)
            for topic, message in [
                ("robot/eef_pose", self._pose),
                ("joint_states", self._joints),
                *((f"camera/{name}/image", self._image) for name in CAMERAS),
            ]
        ]
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._instruction = self.create_publisher(String, "instruction", latched)
        self.create_subscription(JointTrajectory, "policy/action_chunk", self._on_chunk, 10)
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)
        # By stamp: when the second image went out, and when the first chunk for it came.
        self.published_ns: dict[int, int] = {}
        self.answered_ns: dict[int, int] = {}
        self.status: dict[str, str] = {}

    def publish(self) -> None:
        """Publish state and images of this moment."""
        now = self.get_clock().now()
        for publisher, message in self._messages:
            message.header.stamp = now.to_msg()
            self.published_ns[now.nanoseconds] = time.time_ns()
            publisher.publish(message)

    def instruct(self, text: str) -> None:
        """Say what to do."""
        self._instruction.publish(String(data=text))

    def _on_chunk(self, message: JointTrajectory, info: dict[str, int]) -> None:
        stamp_ns = message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec
        self.answered_ns.setdefault(stamp_ns, info["received_timestamp"])

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name == "lightvla_policy: policy":
                self.status = {value.key: value.value for value in status.values}


@contextmanager
def robot() -> Iterator[Robot]:
    """Run the robot in threads of this process."""
    rclpy.init()
    node = Robot()
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    spinner = threading.Thread(target=executor.spin, name="executor")
    cameras = FixedRateThread(name="cameras", rate_hz=CAMERA_RATE_HZ, tick=node.publish, on_error=fail)
    spinner.start()
    cameras.start()
    try:
        yield node
    finally:
        cameras.stop()
        executor.shutdown()
        spinner.join()
        node.destroy_node()
        rclpy.shutdown()


@contextmanager
def listener() -> Iterator[Path]:
    """Run a process that notes when images arrive; yields what it prints."""
    with tempfile.NamedTemporaryFile() as output:
        process = subprocess.Popen([sys.executable, "-c", LISTENER_PROGRAM], stdout=output)
        try:
            yield Path(output.name)
        finally:
            process.kill()
            process.wait()


@contextmanager
def policy_node(engine: str, **parameters: object) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """Run the policy node, active and allowed to move the arm; yields its process and what it prints."""
    values = {
        "engine": engine,
        "num_threads": 1,
        "auto_activate": "true",
        "enable_actuation": "true",
        **parameters,
    }
    arguments = [item for name, value in values.items() for item in ("-p", f"{name}:={value}")]
    with tempfile.NamedTemporaryFile() as output:
        command = [sys.executable, "-c", NODE_PROGRAM, "--ros-args", *arguments]
        node = subprocess.Popen(command, stdout=output)
        try:
            yield node, Path(output.name)
        finally:
            node.terminate()
            node.wait()


def measure_cost(robot: Robot, engine: str, seconds: float) -> dict[str, float]:
    """Measure CPU time with the default rates, in percent of one core."""
    with policy_node(engine) as (node, _):
        wait_until(lambda: robot.status.get("active") == "True", node, "an active node")
        idle = cpu_percent(node.pid, seconds)
        robot.instruct(INSTRUCTION)
        wait_until(lambda: robot.answered_ns, node, "a chunk")
        acting = cpu_percent(node.pid, seconds)
    return {"cpu_uninstructed_percent": idle, "cpu_acting_percent": acting}


def measure_overhead(robot: Robot, engine: str, seconds: float) -> dict[str, float]:
    """Measure from image to chunk, ms."""
    robot.status.clear()
    with (
        listener() as arrivals,
        policy_node(engine, chunk_rate_hz=CHUNK_RATE_HZ) as (node, inferences),
    ):
        wait_until(lambda: "decoder_p50_ms" in robot.status, node, "an inference")
        time.sleep(SETTLING_S)
        robot.answered_ns.clear()
        time.sleep(seconds)
        answered_ns = dict(list(robot.answered_ns.items())[1:])  # the first may be one that was seen before
        model_ms, received_ns = printed(inferences), printed(arrivals)
    rows = [
        (
            (received_ns[stamp] - robot.published_ns[stamp]) / 1e6,
            (answered - received_ns[stamp]) / 1e6,
            model_ms[stamp],
        )
        for stamp, answered in answered_ns.items()
        if stamp in received_ns  # best effort: the listener may miss one
    ]
    way, answer, model = np.array(rows).T
    percentiles = {
        f"{name}_p{rank}_ms": float(np.percentile(values, rank))
        for name, values in {"way": way, "model": model, "overhead": answer - model}.items()
        for rank in (50, 95)
    }
    return {"chunks": len(rows), **percentiles}


def printed(output: Path) -> dict[int, float]:
    """Read lines of two numbers, the first of them a stamp."""
    rows = [line.split() for line in output.read_text().splitlines()]
    return {int(stamp): float(value) for stamp, value in rows}


def cpu_percent(pid: int, seconds: float) -> float:
    """Return how much of one core a process uses, its children not included."""
    time.sleep(SETTLING_S)
    before_s, begun = cpu_time_s(pid), time.monotonic()
    time.sleep(seconds)
    return 100 * (cpu_time_s(pid) - before_s) / (time.monotonic() - begun)


def cpu_time_s(pid: int) -> float:
    """Return the CPU time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def wait_until(is_done: Callable[[], object], node: subprocess.Popen[bytes], what: str) -> None:
    """Poll until it is so."""
    deadline = time.monotonic() + TIMEOUT_S
    while not is_done():
        if node.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"waited in vain for {what}")
        time.sleep(0.05)


def fail(error: Exception) -> None:
    """A tick that raises spoils the measurement."""
    raise error


def main() -> None:
    """Measure, then print the table or one JSON object."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=20.0, help="per measurement (default: %(default)s)")
    parser.add_argument("--engine", default="mini", help="what the node runs (default: mini)")
    parser.add_argument("--json", action="store_true", help="end with one JSON object")
    arguments = parser.parse_args()
    os.environ.update(profile_environment(str(PROFILE), os.environ))
    with robot() as bench:
        measured: dict[str, Any] = {
            **measure_cost(bench, arguments.engine, arguments.seconds),
            **measure_overhead(bench, arguments.engine, arguments.seconds),
        }
    print(f"two {WIDTH}x{HEIGHT} cameras at {CAMERA_RATE_HZ:g} Hz on {os.cpu_count()} cores")
    for name, value in measured.items():
        print(f"{name:<28}{value:>10.2f}")
    if arguments.json:
        print(json.dumps({name: round(value, 3) for name, value in measured.items()}))


if __name__ == "__main__":
    main()
