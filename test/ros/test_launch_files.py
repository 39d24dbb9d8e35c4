"""The launch files with the real `launch`: what they start comes up, obeys its arguments and ends cleanly."""

from __future__ import annotations

import os
import runpy
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import rclpy
import setuptools
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import TwistStamped
from harness import LATCHED, TIMEOUT_S, wait_until
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image
from std_msgs.msg import String

# Not `launch`: the repository has a folder of that name.
pytest.importorskip("launch_ros", reason="needs ROS 2's launch and launch_ros, which PyPI does not have")

ROOT = Path(__file__).parents[2]
# `ros2 launch` in few words, so that ros2cli is not needed.
PROGRAM = """
import sys
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
source = PythonLaunchDescriptionSource(sys.argv[1])
given = [argument.split(":=") for argument in sys.argv[2:]]
service = LaunchService(noninteractive=True)
service.include_launch_description(
    LaunchDescription([IncludeLaunchDescription(source, launch_arguments=given)])
)
sys.exit(service.run())
"""
SCRIPT = """#!{python}
import sys
from {module} import {function}
sys.exit({function}())
"""


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This checkout installed as colcon would, as far as launch files need it."""
    given: dict[str, Any] = {}
    prefix = tmp_path_factory.mktemp("prefix")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(setuptools, "setup", given.update)
        patch.chdir(ROOT)
        runpy.run_path("setup.py")
    for folder, files in given["data_files"]:
        (prefix / folder).mkdir(parents=True, exist_ok=True)
        for file in files:
            shutil.copy(ROOT / file, prefix / folder)
    (prefix / "bin").mkdir()
    for line in given["entry_points"]["console_scripts"]:
        name, _, target = line.partition(" = ")
        module, _, function = target.partition(":")
        script = prefix / "bin" / name
        script.write_text(SCRIPT.format(python=sys.executable, module=module, function=function))
        script.chmod(0o755)
    return prefix


class Launched:
    """A launch file that runs, in a process group of its own as a terminal has it."""

    def __init__(self, prefix: Path, log: Path, file: str, *arguments: str) -> None:
        self._log = log
        path = prefix / "share" / "lightvla_ros" / "launch" / file
        search = {"AMENT_PREFIX_PATH": prefix, "PYTHONPATH": ROOT}
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-c", PROGRAM, str(path), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={
                    **os.environ,
                    **{name: f"{new}:{os.environ.get(name, '')}" for name, new in search.items()},
                    "ROS_LOG_DIR": str(log.parent / "ros"),
                    "PYTHONUNBUFFERED": "1",
                },
                start_new_session=True,
            )

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def ends_cleanly(self, *, at_a_terminal: bool) -> None:
        """Ctrl-C ends every process with 0 and leaves none behind."""
        nodes = self.log.count("process started with pid")
        if at_a_terminal:
            os.killpg(self.process.pid, signal.SIGINT)  # and launch hands it on once more
        else:
            self.process.send_signal(signal.SIGINT)
        assert self.process.wait(TIMEOUT_S) == 0, self.log
        assert nodes == self.log.count("process has finished cleanly"), self.log
        assert "Traceback" not in self.log
        wait_until(lambda: not self.processes(), "the end of every process")

    def processes(self) -> list[int]:
        """Those of the session that are left, inference processes among them."""
        listed = subprocess.run(
            ["ps", "-o", "pid=", "-s", str(self.process.pid)], capture_output=True, text=True, check=False
        )
        return [int(word) for word in listed.stdout.split() if int(word) != self.process.pid]

    def close(self) -> None:
        for pid in self.processes():
            os.kill(pid, signal.SIGKILL)
        self.process.kill()
        self.process.wait()


@pytest.fixture
def start(prefix: Path, tmp_path: Path) -> Iterator[Callable[..., Launched]]:
    launched: list[Launched] = []

    def start(file: str, *arguments: str) -> Launched:
        launched.append(Launched(prefix, tmp_path / f"{len(launched)}.log", file, *arguments))
        return launched[-1]

    yield start
    for one in launched:
        one.close()


class Person(Node):
    """Somebody who looks at the graph."""

    def __init__(self, context: Context) -> None:
        super().__init__("person", context=context)
        self._executor = SingleThreadedExecutor(context=context)
        self._executor.add_node(self)
        self.status: dict[str, dict[str, str]] = {}
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            self.status[status.name] = {value.key: value.value for value in status.values}

    def wait_until(self, is_done: Callable[[], object], what: str) -> None:
        def spun() -> object:
            self._executor.spin_once(timeout_sec=0.02)
            return is_done()

        wait_until(spun, what)

    def wait_active(self, name: str = "lightvla_policy") -> None:
        def is_active() -> bool:
            return self.status.get(f"{name}: policy", {}).get("active") == "True"

        self.wait_until(is_active, f"{name} active")


@pytest.fixture
def person() -> Iterator[Person]:
    context = Context()
    rclpy.init(context=context)
    node = Person(context)
    yield node
    node.destroy_node()
    rclpy.shutdown(context=context)


def test_the_policy_comes_up_active_and_may_not_move(start: Callable[..., Launched], person: Person) -> None:
    launched = start("policy.launch.py")
    person.wait_active()
    assert person.status["lightvla_policy: policy"]["enabled"] == "False"
    launched.ends_cleanly(at_a_terminal=False)


def test_the_policys_topics_and_namespace_are_those_that_were_asked_for(
    start: Callable[..., Launched], person: Person
) -> None:
    arguments = ("namespace:=left", "third_person_topic:=front/image", "command_topic:=/servo/twist")
    launched = start("policy.launch.py", *arguments)
    person.wait_active("left/lightvla_policy")
    heard = dict(person.get_subscriber_names_and_types_by_node("lightvla_policy", "/left"))
    said = dict(person.get_publisher_names_and_types_by_node("lightvla_policy", "/left"))
    assert {"/left/front/image", "/left/camera/wrist/image", "/left/instruction"} <= set(heard)
    assert {"/servo/twist", "/left/policy/action_chunk", "/left/policy/gripper"} <= set(said)
    launched.ends_cleanly(at_a_terminal=True)


def test_two_policies_in_two_namespaces_do_not_hear_each_other(
    start: Callable[..., Launched], person: Person
) -> None:
    both = [start("policy.launch.py", f"namespace:={name}") for name in ("left", "right")]
    for name in ("left", "right"):
        person.wait_active(f"{name}/lightvla_policy")
    person.create_publisher(String, "/left/instruction", LATCHED).publish(String(data="pick up the red cube"))
    left, right = (f"{name}/lightvla_policy: policy" for name in ("left", "right"))
    person.wait_until(lambda: person.status[left]["instruction"] == "pick up the red cube", "the instruction")
    person.status.clear()
    person.wait_until(lambda: right in person.status, "word of the other one")
    assert (person.status[right]["instruction"], person.status[right]["epoch"]) == ("", "1")
    for launched in both:
        launched.ends_cleanly(at_a_terminal=True)


def test_the_sim_sends_images_of_the_size_that_was_asked_for(
    start: Callable[..., Launched], person: Person
) -> None:
    pytest.importorskip("mujoco", reason="needs the extra sim")
    widths: list[int] = []
    person.create_subscription(
        Image, "/camera/wrist/image", lambda m: widths.append(m.width), qos_profile_sensor_data
    )
    launched = start("sim.launch.py", "image_size:=64", "dds_profile:=none")
    person.wait_until(lambda: widths, "an image")
    assert widths[0] == 64
    launched.ends_cleanly(at_a_terminal=True)


def test_the_demos_robot_acts_on_an_instruction(start: Callable[..., Launched], person: Person) -> None:
    pytest.importorskip("mujoco", reason="needs the extra sim")
    moves: list[TwistStamped] = []

    def on_command(message: TwistStamped) -> None:
        if message.twist.linear.x or message.twist.linear.z:
            moves.append(message)

    person.create_subscription(TwistStamped, "/policy/command", on_command, 10)
    launched = start("demo.launch.py")
    person.wait_active()
    instruction = String(data="pick up the red cube and place it in the basket")
    person.create_publisher(String, "/instruction", LATCHED).publish(instruction)
    person.wait_until(lambda: len(moves) > 20, "a second of motion")
    launched.ends_cleanly(at_a_terminal=True)
