"""Recording a policy node, and showing the recording to the node again."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import rclpy
from harness import Bench
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from std_msgs.msg import String

pytest.importorskip("rosbags", reason="needs the extra record")
from rosbags.typesys import Stores, get_typestore  # noqa: E402  # only where it is

from lightvla_ros.nodes.recorder import Recorder, topics_of  # noqa: E402
from lightvla_ros.recording.bag import BagReader, BagWriter, TopicOffer  # noqa: E402
from lightvla_ros.recording.inferences import RecordedInferences, stamp_of  # noqa: E402

CLI = [sys.executable, "-c", "import sys; from lightvla_ros.cli import main; sys.exit(main())"]
TIMEOUT_S = 20.0


class Tape:
    """A recorder on a node of its own."""

    def __init__(
        self, bench: Bench, path: Path, *, policy_node: str = "/lightvla_policy", **options: Any
    ) -> None:
        self.path = path
        self.warnings: list[str] = []
        self.bag = BagWriter(path)
        self.node = Node("tape", context=bench.robot.context)
        self._executor = SingleThreadedExecutor(context=bench.robot.context)
        self._executor.add_node(self.node)
        options = {"with_overlays": False, "warn": self.warnings.append, **options}
        self._recorder = Recorder(self.node, self.bag, policy_node="/lightvla_policy", **options)

    def run_until(self, is_done: Callable[[], object], what: str) -> None:
        deadline = time.monotonic() + TIMEOUT_S
        while not is_done():
            assert time.monotonic() < deadline, what
            self._recorder.watch()
            for _ in range(20):
                self._executor.spin_once(timeout_sec=0.01)

    def close(self) -> None:
        self._recorder.close()
        self.bag.close()
        self._executor.shutdown()
        self.node.destroy_node()


def test_a_recording_has_all_the_node_heard_and_said(moving: Bench, tmp_path: Path) -> None:
    tape = Tape(moving, tmp_path / "bag")
    tape.run_until(lambda: tape.bag.counts.get("/policy/inference", 0) > 20, "inferences")
    tape.close()
    expected = {
        "/camera/third_person/image",
        "/camera/wrist/image",
        "/joint_states",
        "/robot/eef_pose",
        "/instruction",
        "/diagnostics",
        "/policy/action_chunk",
        "/policy/command",
        "/policy/inference",
        "/policy/retained_tokens/third_person",
        "/policy/retained_tokens/wrist",
    }
    heard = {topic for topic, count in tape.bag.counts.items() if count}
    assert expected <= heard
    assert not any("overlay" in topic or "rosout" in topic for topic in tape.bag.counts)
    assert not tape.warnings
    with BagReader(tape.path) as bag:
        (instruction,) = bag.messages({"/instruction"})
        assert bag.decoded(instruction).data == "go", "one that was published before the recording began"
        stamps = [stamp_of(message.data) for message in bag.messages({"/camera/wrist/image"})]
        assert len(stamps) == len(set(stamps)), "none twice"
        inferences = RecordedInferences(bag)
        complete = list(inferences.with_images(inferences.records))
        assert len(complete) > 15


def test_overlays_are_recorded_where_that_is_wanted(moving: Bench, tmp_path: Path) -> None:
    tape = Tape(moving, tmp_path / "bag", with_overlays=True)
    tape.run_until(lambda: tape.bag.counts.get("/policy/overlay/wrist"), "overlays")
    tape.close()


def test_a_publisher_of_another_type_is_told_once(moving: Bench, tmp_path: Path) -> None:
    context = Context()
    rclpy.init(context=context)
    stranger = Node("stranger", context=context)
    stranger.create_publisher(String, "/camera/wrist/image", 1)
    moving.wait_until(lambda: moving.reason == "two_publishers:wrist", "the second publisher")
    tape = Tape(moving, tmp_path / "bag")
    tape.run_until(lambda: tape.bag.counts.get("/camera/wrist/image", 0) > 5, "images")
    tape.close()
    stranger.destroy_node()
    rclpy.shutdown(context=context)
    (warning,) = tape.warnings
    assert "topic /camera/wrist/image: got publishers of std_msgs/msg/String" in warning


def test_a_node_that_is_not_there_has_no_topics(moving: Bench) -> None:
    assert topics_of(moving.robot, "/nobody") == {}
    moving.wait_until(lambda: "/camera/wrist/image" in topics_of(moving.robot, "/lightvla_policy"), "topics")


def test_recording_needs_a_node_and_leaves_nothing_behind_without(tmp_path: Path) -> None:
    out = tmp_path / "bag"
    command = [*CLI, "record", "--out", str(out), "--node", "robot9/policy", "--wait-s", "1"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 1
    assert "policy node /robot9/policy; got no such node in 1 s" in result.stderr
    assert not out.exists()


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo, recorded by the command from another process."""
    directory = tmp_path_factory.mktemp("recording")
    domain = str(1 + (int(os.environ.get("ROS_DOMAIN_ID", "0")) + 50) % 100)
    demo = [
        *CLI,
        "demo",
        "--headless",
        "--episodes",
        "3",
        "--domain-id",
        domain,
        "--out",
        str(directory / "demo"),
    ]
    record = [*CLI, "record", "--out", str(directory / "bag"), "--wait-s", "60", "--json"]
    environment = {**os.environ, "ROS_DOMAIN_ID": domain}
    recorder = subprocess.Popen(record, stdout=subprocess.PIPE, text=True, env=environment)
    try:
        subprocess.run(demo, check=True, timeout=180)
    finally:
        recorder.send_signal(signal.SIGTERM)
        output, _ = recorder.communicate(timeout=60)
    assert recorder.returncode == 0
    summary = json.loads(output.splitlines()[-1])
    assert summary["inferences"] > 10, output
    return directory / "bag"


def with_one_action_changed(recording: Path, path: Path, *, by: float) -> Path:
    """Copy a recording, with another first action of its third inference."""
    store = get_typestore(Stores.ROS2_HUMBLE)
    with BagReader(recording) as bag, BagWriter(path) as copy:
        for topic, kind in bag.topics.items():
            copy.add_topic(topic, TopicOffer(type_name=kind, is_reliable=True, is_latched=False))
        inferences = RecordedInferences(bag)
        third = next(islice(inferences.with_images(inferences.records), 2, None)).record
        first, *others = third.actions
        changed = replace(third, actions=((first[0] + by, *first[1:]), *others))
        for message in bag.messages(set(bag.topics)):
            data = message.data
            if message.topic == "/policy/inference" and bag.decoded(message).data == third.to_json():
                text = store.types["std_msgs/msg/String"](data=changed.to_json())
                data = bytes(store.serialize_cdr(text, text.__msgtype__))
            copy.write(message.topic, data, message.time_ns)
    return path


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    words = [*CLI, *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, timeout=180, check=False)


@pytest.mark.slow
def test_a_replayed_recording_gives_the_same_chunks_bit_for_bit(recording: Path) -> None:
    result = command("replay", recording, "--json")
    assert result.returncode == 0, result.stderr
    summary = json.loads(result.stdout.splitlines()[-1])
    assert summary["replayed"] > 10
    assert summary["identical"] == summary["replayed"]
    assert (summary["max_abs_error"], summary["kept_iou"], summary["passed"]) == (0.0, 1.0, True)


@pytest.mark.slow
def test_a_chunk_that_differs_fails_and_is_told_by_how_much(recording: Path, tmp_path: Path) -> None:
    spoiled = with_one_action_changed(recording, tmp_path / "spoiled", by=0.25)
    result = command("replay", spoiled, "--limit", 4, "--json")
    assert (result.returncode, result.stderr) == (1, "")
    summary = json.loads(result.stdout.splitlines()[-1])
    assert (summary["replayed"], summary["identical"], summary["passed"]) == (4, 3, False)
    assert summary["max_abs_error"] == pytest.approx(0.25)
    assert command("replay", spoiled, "--limit", 4, "--tolerance", 0.3).returncode == 0


@pytest.mark.slow
def test_a_recording_is_drawn_without_ros(recording: Path, tmp_path: Path) -> None:
    for name in ("film.mp4", "film.gif", "strip.png"):
        result = command("render", recording, "--out", tmp_path / name, "--width", 256)
        assert result.returncode == 0, result.stderr
        assert (tmp_path / name).stat().st_size > 10_000


def test_the_foxglove_layout_shows_topics_and_figures_that_the_node_has(moving: Bench) -> None:
    layout = json.loads((Path(__file__).parents[2] / "config" / "foxglove.json").read_text(encoding="utf-8"))
    told = json.dumps(layout["configById"])
    topics = set(re.findall(r'"(/[a-z_/]+)', told))
    keys = set(re.findall(r'key==\\"(\w+)\\"', told))
    assert len(topics) > 8
    assert len(keys) > 4
    moving.wait_until(lambda: "published_p95_ms" in moving.robot.status, "diagnostics")
    topics.discard("/lightvla_policy/enable")
    moving.wait_until(lambda: topics <= topics_of(moving.robot, "/lightvla_policy").keys(), "its topics")
    # The test's policy has not all the stages of a real one.
    assert keys - {"pruner_p95_ms", "decoder_p95_ms"} <= set(moving.robot.status)
    panels = set(re.findall(r'"([A-Z]\w+!\w+)"', json.dumps(layout["layout"])))
    assert panels == set(layout["configById"])
