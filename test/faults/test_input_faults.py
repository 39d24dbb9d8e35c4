"""Cameras and the robot's state fail: the robot stands still for that reason, and goes on when they work."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest
from graph import INSTRUCTION, STALE_AFTER_S, Camera, Graph
from sensor_msgs.msg import Image

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def started(make_graph: Callable[[], Graph]) -> Graph:
    graph = make_graph()
    graph.start_moving_for_long()
    return graph


@pytest.fixture
def moving(started: Graph) -> Iterator[Graph]:
    """A node that moves the robot, before the test and after it."""
    started.robot.instruct(INSTRUCTION)
    started.wait_for_motion()
    yield started
    started.robot.heal()
    for name in ("camera.frozen_after_s", "instruction_timeout_s"):
        assert started.set_parameter(name, 0.0).successful
    started.wait_for_motion()


def test_a_camera_that_dies(moving: Graph) -> None:
    moving.robot.cameras.discard("wrist")
    moving.assert_stops("stale:wrist")


def test_a_camera_that_repeats_an_image_with_its_stamp(moving: Graph) -> None:
    moving.robot.camera["wrist"].stamp_ns = moving.robot.image_stamps[-1]
    moving.assert_stops("stale:wrist")


def test_a_camera_that_repeats_an_image_under_new_stamps(moving: Graph) -> None:
    assert moving.set_parameter("camera.frozen_after_s", 0.3).successful
    moving.assert_moves(0.5)
    moving.robot.camera["wrist"].frozen = True
    moving.assert_stops("frozen:wrist")
    moving.robot.heal()
    moving.wait_for_motion()


@pytest.mark.parametrize(("shift_s", "code"), [(-10.0, "stale:wrist"), (10.0, "refused:wrist")])
def test_a_camera_that_jumps_in_time(moving: Graph, shift_s: float, code: str) -> None:
    moving.robot.camera["wrist"].shift_s = shift_s
    moving.assert_stops(code)


def test_a_camera_that_changes_its_size_stops_motion_until_reset(moving: Graph) -> None:
    moving.robot.camera["wrist"] = Camera(width=32, height=24)
    moving.assert_stops("refused:wrist")
    assert "got 32x24 pixels; expected 64x48" in moving.status()["stop_message"]
    moving.reset()
    moving.wait_for_motion()
    moving.robot.heal()
    moving.wait_for_reason("refused:wrist")
    moving.reset()


def test_a_camera_that_switches_to_an_encoding_nobody_knows(moving: Graph) -> None:
    moving.robot.camera["wrist"] = Camera(encoding="bayer_rggb16")
    moving.assert_stops("refused:wrist")
    assert "got 'bayer_rggb16'; expected one of rgb8" in moving.status()["stop_message"]


def test_a_camera_that_switches_between_known_encodings_stops_nothing(moving: Graph) -> None:
    for encoding in ("bgr8", "mono8", "rgb8"):
        moving.robot.camera["wrist"] = Camera(encoding=encoding)
        moving.assert_moves(0.5)


def _wrong_step(image: Image) -> None:
    image.step += 1


def _too_little_data(image: Image) -> None:
    del image.data[100:]


def _empty(image: Image) -> None:
    image.width = image.height = image.step = 0
    del image.data[:]


@pytest.mark.parametrize("garbage", [_wrong_step, _too_little_data, _empty])
def test_a_camera_that_sends_garbage(moving: Graph, garbage: Callable[[Image], None]) -> None:
    moving.robot.camera["third_person"].spoil = garbage
    moving.assert_stops("refused:third_person")


@pytest.mark.parametrize(
    ("every", "shift_s"),
    [
        (2, 0.05),  # cameras at 10 Hz that take turns
        (1, 0.45),  # a partner within the allowed skew would be older than what is kept
    ],
)
def test_cameras_that_disagree_in_time(moving: Graph, every: int, shift_s: float) -> None:
    assert moving.set_parameter("max_ahead_s", 1.0).successful  # else the later one is refused
    moving.robot.camera = {"third_person": Camera(every=every), "wrist": Camera(every=every, shift_s=shift_s)}
    moving.assert_stops("skew")
    moving.robot.heal()
    moving.wait_for_motion()
    assert moving.set_parameter("max_ahead_s", 0.1).successful


def test_a_camera_whose_clock_is_ahead(moving: Graph) -> None:
    moving.robot.camera["wrist"].shift_s = 0.2
    moving.assert_stops("refused:wrist")
    ahead = re.search(r"got (\S+) s in the future", moving.status()["stop_message"])
    assert ahead is not None
    assert 0.1 < float(ahead[1]) <= 0.2, "less what the image took to arrive"


def test_a_camera_at_another_rate_stops_nothing(moving: Graph) -> None:
    moving.robot.camera["wrist"].every = 3
    moving.assert_moves(1.5)
    assert moving.next_status()["stop_reason"] == ""


def test_an_instruction_that_is_not_repeated_where_that_is_asked_for(moving: Graph) -> None:
    assert moving.set_parameter("instruction_timeout_s", 0.5).successful
    moving.assert_stops("instruction_stale")
    repeated = moving.robot.create_timer(0.1, lambda: moving.robot.instruct(INSTRUCTION))
    moving.wait_for_motion()
    moving.assert_moves(1.0)
    assert moving.set_parameter("instruction_timeout_s", 0.0).successful
    moving.robot.destroy_timer(repeated)


def test_a_state_that_is_not_finite(moving: Graph) -> None:
    moving.robot.fingers = [float("nan"), 0.0]
    moving.assert_stops("refused:robot_state")


def test_a_state_that_dies(moving: Graph) -> None:
    moving.robot.sends_state = False
    moving.assert_stops("stale:robot_state", within_s=2 * STALE_AFTER_S)
