"""The panel's link beside the real policy node: pictures, commands, and topics of every quality and kind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import cv2
import numpy as np
import pytest
from harness import CAMERAS, LATCHED, TIMEOUT_S, Bench, wait_until
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Bool, String

from lightvla_ros.nodes.observer import observing, spinning
from lightvla_ros.nodes.panel_link import PanelLink
from lightvla_ros.view.panel_model import PanelModel
from lightvla_ros.view.panel_state import CameraView, Mode, PanelState

MakeBench = Callable[..., Bench]
COMMAND = "import sys; from lightvla_ros.cli import main; sys.exit(main())"
RELIABLE = QoSProfile(depth=1)
BEST_EFFORT = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)


class Watcher:
    """A panel without its looks: model and link on a node that a thread spins."""

    def __init__(self) -> None:
        self.model = PanelModel()
        self._stack = ExitStack()
        self.node, executor = self._stack.enter_context(observing("watcher"))
        self.before = _entities_of(self.node)
        self.link = PanelLink(self.node, self.model)
        self._stack.enter_context(spinning(executor))

    @property
    def state(self) -> PanelState:
        return self.model.state(time.monotonic())

    def camera(self, name: str = "wrist") -> CameraView:
        return next((view for view in self.state.cameras if view.name == name), CameraView(name=name))

    def shows(self, mode: Mode, shape: tuple[int, ...]) -> bool:
        """Whether both cameras are there as they should."""
        self.model.mode = mode
        views = [self.camera(name) for name in CAMERAS]
        return all(
            view.image is not None and view.image.shape == shape and not view.complaint for view in views
        )

    def complains(self, text: str) -> bool:
        return text in self.camera().complaint

    def close(self) -> None:
        self.link.close()
        self.after = _entities_of(self.node)
        self._stack.close()


def _entities_of(node: object) -> list[int]:
    return [len(list(getattr(node, kind))) for kind in ("subscriptions", "publishers", "clients", "timers")]


@pytest.fixture
def watcher() -> Iterator[Watcher]:
    watcher = Watcher()
    yield watcher
    watcher.close()


def test_images_masks_and_overlays_arrive_each_in_its_mode(moving: Bench, watcher: Watcher) -> None:
    for mode, shape in ((Mode.IMAGE, (48, 64, 3)), (Mode.MASK, (4, 4)), (Mode.OVERLAY, (48, 64, 3))):
        wait_until(lambda mode=mode, shape=shape: watcher.shows(mode, shape), f"{mode.value} of both cameras")
        if mode is not Mode.IMAGE:
            wait_until(lambda: "of 16 retained" in watcher.camera().caption, "its inference")


def test_what_is_no_longer_shown_is_no_longer_published(moving: Bench, watcher: Watcher) -> None:
    def listeners() -> dict[str, int]:
        topics = {"overlay": "overlay", "mask": "retained_tokens"}
        return {
            name: sum(moving.node.count_subscribers(f"/policy/{topic}/{camera}") for camera in CAMERAS)
            for name, topic in topics.items()
        }

    wait_until(lambda: watcher.shows(Mode.OVERLAY, (48, 64, 3)), "overlays")
    wait_until(lambda: watcher.shows(Mode.MASK, (4, 4)), "masks")
    wait_until(lambda: listeners()["overlay"] == 0, "nobody who listens to overlays")
    wait_until(lambda: watcher.shows(Mode.IMAGE, (48, 64, 3)), "images")
    wait_until(lambda: listeners() == {"overlay": 0, "mask": 0}, "nobody who listens to either")


def test_state_charts_and_instruction_are_the_nodes_own(moving: Bench, watcher: Watcher) -> None:
    wait_until(lambda: watcher.state.banner.headline.startswith("ACTING"), "the banner")
    assert (watcher.state.instruction, watcher.state.engine) == ("go", "steady on test")

    def has_charts() -> bool:
        kept, latency = watcher.model.charts(time.monotonic())
        return (
            kept is not None and latency is not None and len(kept.times_s) > 5 and "vision" in latency.parts
        )

    wait_until(has_charts, "charts")
    moving.robot.cameras.discard("wrist")
    wait_until(lambda: "stale:wrist" in watcher.state.banner.headline, "the reason")
    assert "/camera/wrist/image" in watcher.state.banner.detail


def test_an_instruction_reaches_the_node_and_stop_stops_it(moving: Bench, watcher: Watcher) -> None:
    wait_until(lambda: watcher.state.node, "the node")
    wait_until(lambda: moving.node.count_publishers("/instruction") == 2, "a publisher")
    watcher.link.instruct("go fast")
    wait_until(lambda: watcher.state.instruction == "go fast", "the instruction in diagnostics")
    assert watcher.state.answer == "sent 'go fast' on /instruction"
    watcher.link.instruct("")
    moving.wait_for_stop("no_instruction")


def test_before_a_node_is_known_nothing_is_sent(watcher: Watcher) -> None:
    watcher.link.instruct("go")
    assert watcher.state.answer == "not sent: no policy node was heard yet"
    watcher.link.enable(enabled=True)
    assert "there is no service" in watcher.state.answer


def test_the_switch_enables_and_disables_the_node(make_bench: MakeBench, watcher: Watcher) -> None:
    bench = make_bench()
    bench.activate()
    bench.robot.instruct("go")
    wait_until(lambda: watcher.state.is_enabled is False, "diagnostics")

    def set_enabled(wanted: bool) -> Callable[[], bool]:
        def ask() -> bool:
            # Asked again: an answer is lost when the server has not discovered the client's ear yet.
            watcher.link.enable(enabled=wanted)
            time.sleep(0.3)
            return watcher.state.is_enabled is wanted

        return ask

    wait_until(set_enabled(True), "the answer")
    assert watcher.state.answer.startswith("/lightvla_policy/enable: ")
    bench.wait_for_motion()
    wait_until(set_enabled(False), "the answer")
    bench.wait_for_stop("disabled")


def test_a_reset_lets_the_robot_go_on_after_an_emergency_stop(moving: Bench, watcher: Watcher) -> None:
    wait_until(lambda: watcher.state.node, "the node")
    button = moving.robot.create_publisher(Bool, "/estop", LATCHED)
    button.publish(Bool(data=True))
    moving.wait_for_stop("estop")
    button.publish(Bool(data=False))
    wait_until(lambda: "estop" in watcher.state.banner.headline, "the reason")

    def is_reset() -> bool:
        # Asked again: an answer is lost when the server has not discovered the client's ear yet.
        watcher.link.reset()
        time.sleep(0.3)
        return moving.reason is None

    wait_until(is_reset, "a reset")
    moving.wait_for_motion()
    assert watcher.state.answer.startswith("/lightvla_policy/reset: ")


@pytest.mark.parametrize("profile", [RELIABLE, BEST_EFFORT], ids=["reliable", "best effort"])
def test_a_camera_is_heard_whatever_its_quality_of_service(
    moving: Bench, watcher: Watcher, profile: QoSProfile
) -> None:
    moving.stop_camera("wrist")
    moving.start_camera("wrist", profile)
    wait_until(lambda: watcher.shows(Mode.IMAGE, (48, 64, 3)), "both images")


def test_a_topic_of_another_type_is_told_and_forgotten(moving: Bench, watcher: Watcher) -> None:
    wait_until(lambda: watcher.shows(Mode.IMAGE, (48, 64, 3)), "images")
    topic = "/camera/wrist/image"
    moving.stop_camera("wrist")
    with observing("impostor") as (impostor, _):
        impostor.create_publisher(String, topic, RELIABLE)
        wait_until(lambda: watcher.complains("std_msgs/msg/String"), "the type")
        assert watcher.complains("expected sensor_msgs/msg/Image or sensor_msgs/msg/CompressedImage")
    wait_until(lambda: watcher.complains(f"nobody publishes {topic}"), "its end")
    moving.start_camera("wrist", RELIABLE)
    wait_until(lambda: watcher.shows(Mode.IMAGE, (48, 64, 3)), "images again")


def test_what_rclpy_refuses_is_told_and_the_rest_goes_on(moving: Bench, watcher: Watcher) -> None:
    """In rqt another plugin may have taken the topic's name for another type."""
    watcher.model.mode = Mode.IMAGE
    watcher.model.choose("/nobody")
    watcher.node.create_subscription(String, "/policy/inference", print, 1)
    watcher.node.create_subscription(Image, "/instruction", print, 1)
    watcher.model.choose("")
    wait_until(lambda: any("/instruction" in problem for problem in watcher.state.problems), "the problem")
    wait_until(lambda: watcher.shows(Mode.IMAGE, (48, 64, 3)), "images")


def test_a_topic_that_vanishes_and_comes_back_is_heard_again(moving: Bench, watcher: Watcher) -> None:
    wait_until(lambda: watcher.shows(Mode.IMAGE, (48, 64, 3)), "images")
    moving.stop_camera("wrist")
    wait_until(lambda: watcher.complains("nobody publishes"), "the complaint")
    moving.start_camera("wrist", RELIABLE)
    wait_until(lambda: watcher.shows(Mode.IMAGE, (48, 64, 3)), "images again")


def test_a_node_that_is_cleaned_up_and_configured_again_is_followed(moving: Bench, watcher: Watcher) -> None:
    wait_until(lambda: watcher.shows(Mode.OVERLAY, (48, 64, 3)), "overlays")
    moving.deactivate()
    assert moving.transition(moving.node.trigger_cleanup)
    wait_until(lambda: watcher.complains("nobody publishes /policy/overlay/wrist"), "the complaint")
    moving.activate()
    moving.robot.instruct("go on")
    wait_until(lambda: watcher.shows(Mode.OVERLAY, (48, 64, 3)), "overlays again")


def test_a_malformed_image_is_told_and_the_next_good_one_shown(moving: Bench, watcher: Watcher) -> None:
    wait_until(lambda: watcher.shows(Mode.IMAGE, (48, 64, 3)), "images")
    moving.robot.encoding = "yuv9"
    wait_until(lambda: watcher.complains("'yuv9'"), "the encoding")
    moving.robot.encoding = "rgb8"
    wait_until(lambda: watcher.shows(Mode.IMAGE, (48, 64, 3)), "images again")


def test_compressed_cameras_are_shown(make_bench: MakeBench, watcher: Watcher) -> None:
    bench = make_bench(camera__transport="compressed")
    bench.activate()
    topic = "/camera/wrist/image/compressed"
    publisher = bench.robot.create_publisher(CompressedImage, topic, BEST_EFFORT)
    _, data = cv2.imencode(".jpg", np.full((20, 30, 3), 128, np.uint8))
    message = CompressedImage(format="jpeg", data=data.tobytes())
    bench.robot.create_timer(0.05, lambda: publisher.publish(message))
    watcher.model.mode = Mode.IMAGE

    def is_shown() -> bool:
        image = watcher.camera().image
        return image is not None and image.shape == (20, 30, 3)

    wait_until(is_shown, "the decoded image")
    assert watcher.camera().topic == topic


def test_closing_leaves_nothing_on_the_node(moving: Bench) -> None:
    """In rqt the node lives on."""
    watcher = Watcher()
    wait_until(lambda: watcher.shows(Mode.OVERLAY, (48, 64, 3)), "overlays")
    watcher.close()
    assert watcher.after == watcher.before


def test_the_window_can_be_photographed_without_a_screen(moving: Bench, tmp_path: Path) -> None:
    pytest.importorskip("lightvla_ros.view.qt", reason="needs the extra view", exc_type=Exception)
    photo = tmp_path / "panel.png"
    options = ["view", "--screenshot", str(photo), "--after-s", "4", "--size", "900x700", "--mode", "mask"]
    ended = subprocess.run(
        [sys.executable, "-c", COMMAND, *options],
        env=_without_screen(tmp_path),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ended.returncode == 0, ended.stderr
    image = cv2.imread(str(photo))
    assert image is not None and image.shape == (700, 900, 3)
    green = (image == (0x32, 0x7D, 0x2E)).all(axis=2)
    assert green.sum() > 20_000, "the banner of a robot that moves"


@pytest.mark.parametrize("how", ["SIGINT", "SIGTERM"])
def test_the_window_ends_on_a_signal_and_keeps_its_settings(tmp_path: Path, how: str) -> None:
    pytest.importorskip("lightvla_ros.view.qt", reason="needs the extra view", exc_type=Exception)
    view = subprocess.Popen(
        [sys.executable, "-c", COMMAND, "view", "--mode", "image"],
        env={**_without_screen(tmp_path), "QT_QPA_PLATFORM": "offscreen"},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        time.sleep(3.0)
        view.send_signal(signal.Signals[how])
        _, said = view.communicate(timeout=TIMEOUT_S)
    finally:
        view.kill()
    assert (view.returncode, "Traceback" in said) == (0, False), said
    assert "mode=image" in (tmp_path / "lightvla_ros" / "view.conf").read_text()


def test_a_signal_before_the_window_is_up_ends_it_too(tmp_path: Path) -> None:
    pytest.importorskip("lightvla_ros.view.qt", reason="needs the extra view", exc_type=Exception)
    early = """
import os, signal
from lightvla_ros.view.panel import Panel
Panel.show = lambda panel: os.kill(os.getpid(), signal.SIGINT)
"""
    ended = subprocess.run(
        [sys.executable, "-c", f"{early}{COMMAND}", "view"],
        env={**_without_screen(tmp_path), "QT_QPA_PLATFORM": "offscreen"},
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
    )
    assert ended.returncode == 0, ended.stderr


def _without_screen(config: Path) -> dict[str, str]:
    screens = ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM")
    environment = {name: value for name, value in os.environ.items() if name not in screens}
    return {**environment, "XDG_CONFIG_HOME": str(config)}
