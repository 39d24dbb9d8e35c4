"""A ROS graph whose parts can be broken: policy nodes as processes, and a robot that hears and spoils."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from harness import CAMERAS, TIMEOUT_S, Robot, call, wait_until
from rcl_interfaces.msg import SetParametersResult
from rcl_interfaces.srv import SetParameters
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image
from std_srvs.srv import SetBool, Trigger

ROOT = Path(__file__).parents[2]
NODE = "lightvla_policy"
STALE_AFTER_S = 0.5
SILENCE_AFTER_S = 0.4
PERIOD_S = 0.05
# Ten periods: far more than a busy machine delays a tick, far less than any of these faults lasts.
LATE_S = 0.5
INSTRUCTION = "pick up the red cube and place it in the basket"


@dataclass
class Camera:
    """How one camera behaves; as made, it is healthy.

    Attributes:
        every: it sends at every so many steps of the robot, 20 Hz.
        shift_s: how far its clock is ahead.
        stamp_ns: what it puts on every image, if anything.
        frozen: whether the pixels stay the same.
        spoil: what it does to a message before it sends it.
    """

    every: int = 1
    shift_s: float = 0.0
    stamp_ns: int | None = None
    frozen: bool = False
    width: int = 64
    height: int = 48
    encoding: str = "rgb8"
    spoil: Callable[[Image], object] = field(default=lambda image: None)


class FaultyRobot(Robot):
    """A robot with noisy cameras, each of which fails as a test asks; hears every policy node by name."""

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.camera = {name: Camera() for name in CAMERAS}
        self.statuses: dict[str, tuple[float, dict[str, str]]] = {}
        self._rng = np.random.default_rng(0)
        self.clock_stands = False
        self._still = self._rng.integers(0, 256, 1 << 16, dtype=np.uint8).tobytes()
        self._steps = 0

    def heal(self) -> None:
        """Let everything work again."""
        self.cameras = set(CAMERAS)
        self.camera = {name: Camera() for name in CAMERAS}
        self.fingers = [0.04, -0.04]
        self.sends_state = True
        self.clock_stands = False

    def step(self) -> None:
        self._steps += 1
        if self.clock_stands and self.sim_time_ns is not None:
            self.sim_time_ns -= round(PERIOD_S * 1e9)
        super().step()

    def send_image(self, camera: str, stamp_ns: int) -> None:
        state = self.camera[camera]
        if self._steps % state.every:
            return
        step = state.width * (1 if state.encoding == "mono8" else 3)
        image = Image(height=state.height, width=state.width, encoding=state.encoding, step=step)
        stamp_ns = stamp_ns + round(state.shift_s * 1e9) if state.stamp_ns is None else state.stamp_ns
        image.header.stamp.sec, image.header.stamp.nanosec = divmod(stamp_ns, 10**9)
        size = state.height * step
        image.data.frombytes(self._still[:size] if state.frozen else self._rng.bytes(size))
        state.spoil(image)
        self.image_publishers[camera].publish(image)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            node = status.name.partition(":")[0]
            self.statuses[node] = (time.monotonic(), {value.key: value.value for value in status.values})


class NodeProcess:
    """The policy node as a user starts it, and what can be done to its processes.

    Args:
        name: the node's name.
        directory: gets its log and the file that commands faults of inference.
        domain_id: of ROS.
        parameters: name -> value.
        spoiled: whether its inference can be told to misbehave, see `spoiled/sitecustomize.py`.
    """

    def __init__(
        self, name: str, directory: Path, domain_id: int, parameters: Mapping[str, object], *, spoiled: bool
    ) -> None:
        self.name = name
        self._log = directory / f"{name}.log"
        self._fault = directory / f"{name}.fault"
        self.fault("")
        paths = [str(ROOT / "test/faults/spoiled")] * spoiled + [str(ROOT), os.environ.get("PYTHONPATH", "")]
        arguments = ["--ros-args", "-r", f"__node:={name}"]
        for parameter, value in parameters.items():
            arguments += ["-p", f"{parameter}:={value}"]
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "lightvla_ros.nodes.policy_node", *arguments],
                stdout=log,
                stderr=subprocess.STDOUT,
                env={
                    **os.environ,
                    "PYTHONPATH": os.pathsep.join(paths),
                    "PYTHONUNBUFFERED": "1",
                    "ROS_DOMAIN_ID": str(domain_id),
                    "ROS_LOG_DIR": str(directory / "ros"),
                    "LIGHTVLA_TEST_FAULT": str(self._fault),
                },
            )

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def fault(self, command: str) -> None:
        """Tell inference how to misbehave from now on; nothing is healthy."""
        self._fault.write_text(command)

    @property
    def inference_pid(self) -> int | None:
        """The inference process; None while there is none."""
        for thread in Path(f"/proc/{self.process.pid}/task").iterdir():
            children = (thread / "children").read_text().split()
            if children:
                return int(children[0])
        return None

    def usage(self) -> tuple[int, int]:
        """Resident memory of the node and its inference process, KiB, and their threads."""
        pids = [self.process.pid, self.inference_pid]
        fields: dict[str, int] = {"VmRSS": 0, "Threads": 0}
        for pid in pids:
            for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                key, _, value = line.partition(":")
                if key in fields:
                    fields[key] += int(value.split()[0])
        return fields["VmRSS"], fields["Threads"]

    def end(self) -> None:
        """End the node as launch does, and make sure of it."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.wait(5.0)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait()


class Graph:
    """One ROS domain: a robot in this process, which judges, and policy nodes in processes of their own."""

    def __init__(self, domain_id: int, directory: Path) -> None:
        self.domain_id = domain_id
        self._directory = directory
        self.nodes: list[NodeProcess] = []
        self._context = Context()
        rclpy.init(context=self._context, domain_id=domain_id)
        self.robot = FaultyRobot(self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.robot)
        self._thread = threading.Thread(target=self._spin, name="robot", daemon=True)
        self._thread.start()
        self._open = True

    def start(self, name: str = NODE, *, spoiled: bool = False, **parameters: object) -> NodeProcess:
        """Start a policy node that activates itself; dots in names of parameters are written as __."""
        values: dict[str, object] = {
            "num_threads": 1,
            "auto_activate": True,
            "enable_actuation": True,
            "stale_after_s": STALE_AFTER_S,
            "silence_after_s": SILENCE_AFTER_S,
            **{key.replace("__", "."): value for key, value in parameters.items()},
        }
        self.nodes.append(NodeProcess(name, self._directory, self.domain_id, values, spoiled=spoiled))
        return self.nodes[-1]

    def start_moving(self, **options: Any) -> NodeProcess:
        """Start a policy node and wait until it moves the robot."""
        node = self.start(**options)
        self.robot.instruct(INSTRUCTION)
        self.wait_for_motion()
        return node

    def start_moving_for_long(self, **options: Any) -> NodeProcess:
        """Start a node whose chunks last four seconds, so that no motion ends because its chunk does."""
        node = self.start(spoiled=True, **options)
        self.wait_for_reason("no_instruction")
        node.fault("stretch 10")
        self.robot.instruct(INSTRUCTION)
        self.wait_for_motion()
        return node

    def close(self) -> None:
        if not self._open:
            return
        self._open = False
        for node in self.nodes:
            node.end()
        self._executor.shutdown()
        self._thread.join()
        self.robot.destroy_node()
        rclpy.shutdown(context=self._context)

    def wait_until(self, is_done: Callable[[], object], what: str) -> None:
        try:
            wait_until(is_done, what)
        except AssertionError as error:
            logs = "".join(f"\n{node.name}:\n{node.log[-2000:]}" for node in self.nodes)
            raise AssertionError(f"{error}; diagnostics: {self.robot.statuses}{logs}") from None

    def status(self, node: str = NODE) -> dict[str, str]:
        """What the node's newest diagnostics say."""
        return self.robot.statuses.get(node, (0.0, {}))[1]

    def next_status(self, node: str = NODE) -> dict[str, str]:
        """Wait for diagnostics that the node sends from now on."""
        asked = time.monotonic()
        self.wait_until(lambda: self.robot.statuses.get(node, (0.0,))[0] > asked, "diagnostics")
        return self.status(node)

    def wait_for_reason(self, code: str, node: str = NODE) -> None:
        """Wait until diagnostics give this reason for standing still; "" for none."""
        asked = time.monotonic()

        def told() -> bool:
            arrived, status = self.robot.statuses.get(node, (0.0, {}))
            return arrived > asked and status["stop_reason"] == code

        self.wait_until(told, f"stop reason {code!r}")

    def wait_for_motion(self) -> None:
        before = len(self.robot.moves)
        self.wait_until(lambda: len(self.robot.moves) > before + 2, "motion")

    def assert_stops(self, code: str, *, within_s: float = STALE_AFTER_S + LATE_S) -> None:
        """The fault has just begun: the robot gets zeros in time, then nothing, and the reason is told."""
        begun = time.monotonic()
        self.wait_for_reason(code)
        self.assert_holds_then_silence(begun, within_s)

    def assert_holds_then_silence(self, begun: float, within_s: float) -> None:
        """Motion has ended in time; zeros follow one after the other, then silence on every topic."""
        stopped = self.robot.moves[-1]
        assert stopped - begun < within_s, f"still moving {stopped - begun:.2f} s after the fault"
        wait_until(lambda: time.monotonic() > stopped + SILENCE_AFTER_S + LATE_S, "the end of the hold")
        before = len(self.robot.commands), len(self.robot.gripper), len(self.robot.chunks)
        time.sleep(0.3)
        assert before == (len(self.robot.commands), len(self.robot.gripper), len(self.robot.chunks))
        assert self.robot.moves[-1] == stopped, "a motion was commanded"
        assert self.robot.speeds[-1] == 0.0, "no zero command was sent"
        self.assert_on_time(stopped, self.robot.commands[-1][0])

    def assert_still(self, duration_s: float = 0.5) -> None:
        """Nothing that moves is commanded for a while."""
        before = len(self.robot.moves)
        time.sleep(duration_s)
        assert len(self.robot.moves) == before, "a motion was commanded"

    def assert_on_time(self, begun: float, ended: float) -> None:
        """Commands were sent one after the other between two moments."""
        wait_until(lambda: self.robot.commands[-1][0] >= ended, "the next command")
        sent = [begun, *(at for at, _ in self.robot.commands if begun < at < ended), ended]
        gap = max(later - earlier for earlier, later in pairwise(sent))
        assert gap < LATE_S, f"no command for {gap:.2f} s"

    def assert_moves(self, duration_s: float) -> None:
        """The robot is told to move, at the rate configured, for a while."""
        begun = time.monotonic()
        time.sleep(duration_s)
        ended = time.monotonic()
        self.assert_on_time(begun, ended)
        moves = sum(begun < at < ended for at in self.robot.moves)
        assert moves > 0.8 * duration_s / PERIOD_S, f"{moves} motions in {duration_s} s"

    def reset(self, node: str = NODE) -> None:
        assert call(self, Trigger, f"/{node}/reset", Trigger.Request()).success  # type: ignore[arg-type]

    def enable(self, node: str = NODE) -> None:
        request = SetBool.Request(data=True)
        assert call(self, SetBool, f"/{node}/enable", request).success  # type: ignore[arg-type]

    def set_parameter(self, name: str, value: object) -> SetParametersResult:
        parameter = Parameter(name, value=value).to_parameter_msg()
        request = SetParameters.Request(parameters=[parameter])
        answer = call(self, SetParameters, f"/{NODE}/set_parameters", request)  # type: ignore[arg-type]
        return answer.results[0]

    def _spin(self) -> None:
        try:
            self._executor.spin()
        except ExternalShutdownException:
            pass


__all__ = [
    "CAMERAS",
    "INSTRUCTION",
    "LATE_S",
    "NODE",
    "TIMEOUT_S",
    "Camera",
    "FaultyRobot",
    "Graph",
    "NodeProcess",
]
