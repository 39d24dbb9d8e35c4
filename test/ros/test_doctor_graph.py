"""`lightvla doctor` on real graphs: cameras that are wrong in every way, and the real policy node."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import rclpy
from geometry_msgs.msg import Twist, TwistStamped
from harness import LATCHED, TIMEOUT_S, Bench, wait_until
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, qos_profile_sensor_data
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String

from lightvla_ros.commands._finding import Finding
from lightvla_ros.commands._graph_findings import graph_findings
from lightvla_ros.core.config import NodeConfig, with_values
from lightvla_ros.core.graph_survey import GraphSurvey
from lightvla_ros.nodes.graph_roles import roles_of
from lightvla_ros.nodes.graph_survey import survey_graph

THIRD, WRIST = "/camera/third_person/image", "/camera/wrist/image"
SECONDS = 2.5


class Others:
    """Nodes beside the doctor, in a thread of their own."""

    def __init__(self) -> None:
        self.context = Context()
        rclpy.init(args=[], context=self.context)
        self._executor = SingleThreadedExecutor(context=self.context)
        self._nodes: list[Node] = []
        self._running = True
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def node(self, name: str = "driver", namespace: str = "") -> Node:
        node = rclpy.create_node(name, namespace=namespace, context=self.context)
        self._nodes.append(node)
        self._executor.add_node(node)
        self._executor.wake()
        return node

    def camera(
        self,
        topic: str,
        *,
        name: str = "driver",
        encoding: str = "rgb8",
        is_stamped: bool = True,
        qos: QoSProfile = qos_profile_sensor_data,
    ) -> None:
        """Publish small images 20 times a second."""
        node = self.node(name)
        publisher = node.create_publisher(Image, topic, qos)
        message = Image(height=4, width=6, step=18, encoding=encoding)
        message.data.frombytes(bytes(72))

        def publish() -> None:
            if is_stamped:
                message.header.stamp = node.get_clock().now().to_msg()
            publisher.publish(message)

        node.create_timer(0.05, publish)

    def close(self) -> None:
        self._running = False
        self._thread.join()
        for node in self._nodes:
            node.destroy_node()
        rclpy.shutdown(context=self.context)

    def _spin(self) -> None:
        while self._running:
            self._executor.spin_once(timeout_sec=0.05)
        self._executor.shutdown()


@pytest.fixture(autouse=True)
def clean_graph() -> None:
    """Nodes of earlier tests leave the graph when Python frees them."""
    gc.collect()


@pytest.fixture
def others() -> Iterator[Others]:
    others = Others()
    yield others
    others.close()


def listen(node: str | None = None, *, until: Callable[[GraphSurvey], object] = bool) -> list[Finding]:
    """Look at the graph until it is as expected: a busy machine takes its time to discover."""
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        survey = survey_graph(node, SECONDS)
        if until(survey) or time.monotonic() > deadline:
            return list(graph_findings(survey))


def about(found: list[Finding], words: str) -> Finding:
    """The one finding with these words."""
    (finding,) = [finding for finding in found if words in finding.text]
    return finding


def heard(topic: str) -> Callable[[GraphSurvey], object]:
    return lambda survey: any(len(t.arrivals) > 5 for t in survey.cameras.values() if t.name == topic)


def published(topic: str, count: int = 1) -> Callable[[GraphSurvey], object]:
    return lambda survey: any(len(t.publishers) == count for t in survey.cameras.values() if t.name == topic)


def test_an_empty_graph_is_one_note() -> None:
    (found,) = listen()
    assert (found.level, found.section) == ("note", "graph")
    assert "nobody is on domain" in found.text


def test_a_best_effort_camera_is_heard_at_its_rate_before_any_policy_node_runs(others: Others) -> None:
    others.camera(WRIST)
    found = listen(until=heard(WRIST))
    wrist = about(found, WRIST)
    assert wrist.level == "ok"
    assert "Hz, 6x4 rgb8, best effort from /driver" in wrist.text
    assert about(found, THIRD).level == "note"
    assert about(found, "no /lightvla_policy").level == "note"


def test_an_encoding_that_nobody_knows_is_told(others: Others) -> None:
    others.camera(WRIST, encoding="nonsense")
    found = about(listen(until=heard(WRIST)), WRIST)
    assert (found.level, "nonsense" in found.text, bool(found.fix)) == ("warning", True, True)


def test_images_without_stamps_are_told(others: Others) -> None:
    others.camera(WRIST, is_stamped=False)
    found = about(listen(until=heard(WRIST)), WRIST)
    assert (found.level, "stamps are zero" in found.text) == ("warning", True)


def test_two_publishers_of_one_camera_are_told(others: Others) -> None:
    others.camera(WRIST)
    others.camera(WRIST, name="replay")
    found = listen(until=published(WRIST, 2))
    assert "2 publishers" in about(found, f"{WRIST}: 2").text


def test_another_message_type_is_told_and_not_listened_to(others: Others) -> None:
    others.node().create_publisher(CompressedImage, WRIST, qos_profile_sensor_data)
    found = about(listen(until=published(WRIST)), WRIST)
    assert found.level == "warning"
    assert "camera.transport to compressed" in found.fix


def test_a_publisher_that_says_nothing_is_told(others: Others) -> None:
    others.node().create_publisher(Image, WRIST, qos_profile_sensor_data)
    found = about(listen(until=published(WRIST)), WRIST)
    assert (found.level, "nothing came from /driver" in found.text) == ("warning", True)


def test_images_on_another_topic_are_found(others: Others) -> None:
    others.camera("/realsense/color")
    found = listen(until=lambda survey: survey.image_topics)
    assert "/realsense/color" in about(found, WRIST).fix


def test_the_real_node_and_its_robot_are_in_order(moving: Bench) -> None:
    found = listen(until=lambda s: s.policy and s.policy.state and s.policy.instruction and heard(WRIST)(s))
    assert {finding.level for finding in found} == {"ok"}, found
    assert about(found, "is active").text == "/lightvla_policy is active and acts on 'go'"
    assert about(found, "/policy/command").text.endswith("TwistStamped, heard by /robot")
    assert about(found, "stamps differ").section == "cameras"
    assert {finding.section for finding in found} == {"graph", "cameras", "robot"}


def test_a_node_that_is_not_configured_is_told_with_the_command(make_bench: Callable[..., Bench]) -> None:
    make_bench()
    found = about(listen(until=lambda s: s.policy and s.policy.state), "unconfigured")
    assert found.fix == "ros2 lifecycle set /lightvla_policy configure"


def test_a_reliable_node_does_not_hear_a_best_effort_camera(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(camera__reliability="reliable")
    bench.activate()
    found = listen(until=lambda s: s.policy and all(t.publishers for t in s.cameras.values()))
    wrist = about(found, f"{WRIST}: /robot is not heard")
    assert (wrist.level, wrist.fix) == ("error", "set camera.reliability to auto")
    assert "best effort publisher and reliable subscription" in wrist.text


def test_a_gripper_of_other_names_and_a_stop_are_told(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(proprio__gripper_joints=["left_knuckle", "right_knuckle"])
    bench.activate()
    found = listen(until=lambda s: s.policy and s.policy.stop_code and any(t.joint_names for t in s.states))
    gripper = about(found, "gripper's joints left_knuckle, right_knuckle")
    assert gripper.level == "error"
    assert gripper.text.endswith("heard are finger_left, finger_right")
    assert about(found, "stands still").level in {"note", "warning", "error"}


def test_another_commander_and_a_controller_that_hears_nothing_are_told(
    moving: Bench, others: Others
) -> None:
    node = others.node("teleop")
    node.create_publisher(TwistStamped, "/policy/command", 1)
    node.create_subscription(TwistStamped, "/policy/command", lambda message: None, LATCHED)
    found = listen(
        until=lambda s: s.policy and len(s.command.publishers) == 2 and len(s.command.subscriptions) == 2
    )
    assert about(found, "publishes beside").text.startswith("/policy/command: /teleop")
    assert about(found, "/teleop hears nothing").level == "error"


def test_a_controller_of_another_type_is_told(moving: Bench, others: Others) -> None:
    others.node("servo").create_subscription(Twist, "/policy/command", lambda message: None, 1)
    found = listen(until=lambda s: s.policy and len(s.command.subscriptions) == 2)
    assert "command.type" in about(found, "/servo expects geometry_msgs/msg/Twist").fix


def test_a_clock_that_the_node_does_not_keep_is_told(moving: Bench) -> None:
    moving.robot.sim_time_ns = 10**9
    found = listen(until=lambda s: s.policy and s.policy.state and len(s.clock.arrivals) > 5)
    assert "use_sim_time" in about(found, "publishes /clock").fix


def test_simulated_time_is_what_ages_are_measured_by(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench(use_sim_time=True)
    bench.robot.sim_time_ns = 10**9
    bench.activate()
    found = listen(until=lambda s: s.uses_sim_time and len(s.clock.arrivals) > 5 and heard(WRIST)(s))
    assert about(found, "/clock at").level == "ok"
    assert about(found, f"{WRIST}: ").level == "ok"


def test_a_node_in_a_namespace_is_found_by_itself_or_by_name(others: Others) -> None:
    others.node("lightvla_policy", namespace="/left")
    others.node("lightvla_policy", namespace="/right")
    found = listen(until=lambda s: s.wanted.startswith("/left") and s.other_policies)
    assert about(found, "/left/lightvla_policy is there")
    assert about(found, "other policy nodes: /right/lightvla_policy")
    found = listen("/middle/lightvla_policy", until=lambda s: len(s.other_policies) == 2)
    assert about(found, "no /middle/lightvla_policy").fix == "--node /left/lightvla_policy"
    assert about(found, "/middle/camera")


def test_whatever_is_published_nothing_raises(others: Others) -> None:
    node = others.node("odd")
    for topic in (THIRD, WRIST, "/joint_states", "/robot/eef_pose", "/clock", "/policy/command"):
        node.create_publisher(String, topic, 1)
    node.create_publisher(Clock, "/instruction", 1)
    found = listen(until=published(WRIST))
    assert all(finding.text and finding.level != "ok" for finding in found)


@pytest.mark.parametrize("seconds", [0.2, 2.0])
def test_listening_takes_no_longer_than_was_asked_for(seconds: float, moving: Bench) -> None:
    begun = time.monotonic()
    survey = survey_graph(None, seconds)
    list(graph_findings(survey))
    assert seconds <= time.monotonic() - begun < seconds + 2.0


def doctor(*options: str) -> tuple[int, dict[str, Any], str]:
    command = "import sys; from lightvla_ros.cli import main; sys.exit(main())"
    result = subprocess.run(
        [sys.executable, "-c", command, "doctor", "--json", *options],
        capture_output=True,
        text=True,
        check=False,
        timeout=90,
    )
    *text, last = result.stdout.splitlines()
    return result.returncode, json.loads(last), "\n".join(text)


def test_the_command_fails_where_the_robot_cannot_move(moving: Bench) -> None:
    moving.robot.cameras.discard("wrist")
    wait_until(lambda: moving.reason == "stale:wrist", "a stop")
    code, result, text = doctor("--seconds", "4")
    assert (code, result["passed"]) == (1, False)
    assert any(f["level"] == "error" and "/camera/wrist/image" in f["text"] for f in result["findings"])
    assert "\ncameras\n" in text


def test_the_command_leaves_the_graph_alone_when_told_so(moving: Bench) -> None:
    code, result, _ = doctor("--no-graph")
    assert code == 0
    assert {finding["section"] for finding in result["findings"]}.isdisjoint({"graph", "cameras", "robot"})


def test_before_the_node_is_configured_its_topics_are_the_defaults_of_its_parameters() -> None:
    config = with_values(
        NodeConfig(),
        {"camera.transport": "compressed", "proprio.source": "proprio", "command.type": "jtc_point"},
    )
    roles = roles_of(namespace="/left", config=config, hears=(), says=(), camera_names={})
    assert roles.cameras["wrist"] == (
        "/left/camera/wrist/image/compressed",
        "sensor_msgs/msg/CompressedImage",
    )
    assert roles.states == (("/left/robot/proprio", "std_msgs/msg/Float64MultiArray"),)
    assert roles.command == ("/left/policy/command", "trajectory_msgs/msg/JointTrajectory")


def test_remapped_topics_are_found_by_their_types_and_named_as_the_node_says() -> None:
    trajectory = ["trajectory_msgs/msg/JointTrajectory"]
    roles = roles_of(
        namespace="",
        config=with_values(NodeConfig(), {"command.type": "jtc_chunk"}),
        hears=(
            ("/cam0", ["sensor_msgs/msg/Image"]),
            ("/cam1", ["sensor_msgs/msg/Image"]),
            ("/arm/joint_states", ["sensor_msgs/msg/JointState"]),
            ("/arm/pose", ["geometry_msgs/msg/PoseStamped"]),
            ("/say", ["std_msgs/msg/String"]),
        ),
        says=(("/policy/action_chunk", trajectory), ("/arm_controller/joint_trajectory", trajectory)),
        camera_names={"/cam1": "wrist"},
    )
    assert {name: topic for name, (topic, _) in roles.cameras.items()} == {"/cam0": "/cam0", "wrist": "/cam1"}
    assert [topic for topic, _ in roles.states] == ["/arm/joint_states", "/arm/pose"]
    assert (roles.instruction[0], roles.command[0]) == ("/say", "/arm_controller/joint_trajectory")
