"""What the policy node shows of an inference: record, patch grid and overlay, for whoever listens."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from harness import CAMERAS, Bench, SteadyPolicy
from sensor_msgs.msg import Image
from std_msgs.msg import String

from lightvla_ros.core.grid_region import grid_region
from lightvla_ros.core.inference_record import InferenceRecord
from lightvla_ros.core.observation import ActionChunk, Observation
from lightvla_ros.nodes import qos
from lightvla_ros.nodes.conversions import image_from_message, stamp_ns

MakeBench = Callable[..., Bench]


def hear(bench: Bench, kind: type[Any], topic: str) -> list[Any]:
    """Listen to a topic from now on."""
    messages: list[Any] = []
    bench.robot.create_subscription(kind, topic, messages.append, qos.RECORD)
    return messages


def hear_records(bench: Bench, number: int) -> list[InferenceRecord]:
    messages = hear(bench, String, "/policy/inference")
    bench.wait_until(lambda: len(messages) >= number, "inference records")
    return [InferenceRecord.from_json(message.data) for message in messages]


def test_masks_and_overlays_carry_the_stamp_of_their_image(moving: Bench) -> None:
    masks = hear(moving, Image, "/policy/retained_tokens/wrist")
    overlays = hear(moving, Image, "/policy/overlay/wrist")
    moving.wait_until(lambda: len(masks) > 4 and overlays, "masks")
    assert {stamp_ns(mask.header.stamp) for mask in masks} <= set(moving.robot.image_stamps)
    assert (masks[0].encoding, masks[0].height, masks[0].width) == ("mono8", 4, 4)
    assert len({bytes(mask.data).count(255) for mask in masks}) > 1, "the retained count varies"
    assert (overlays[0].encoding, overlays[0].height, overlays[0].width) == ("rgb8", 48, 64)


def test_a_record_tells_all_that_an_inference_got_and_gave(moving: Bench) -> None:
    policy = moving.policy
    records = hear_records(moving, 5)
    seen = {observation.stamp_ns: observation for observation in policy.seen}
    for record in records:
        observation = seen[record.stamp_ns]
        assert record.state == tuple(observation.proprio)
        assert (record.instruction, record.epoch) == ("go", observation.epoch)
        assert (record.engine, record.backend, record.taken) == ("steady", "test", True)
        assert np.array(record.actions, np.float32).tobytes() == policy.actions_for(observation).tobytes()
        assert set(record.cameras) == set(CAMERAS)
        wrist = record.cameras["wrist"]
        assert (wrist.topic, wrist.upside_down) == ("/camera/wrist/image", False)
        assert (wrist.stamp_ns, wrist.grid, wrist.region) == (record.stamp_ns, (4, 4), grid_region(48, 64))
    assert len({record.num_retained for record in records}) > 1


def test_every_inference_has_its_record_in_order(moving: Bench) -> None:
    records = hear_records(moving, 20)
    stamps = [record.stamp_ns for record in records]
    asked = [observation.stamp_ns for observation in moving.policy.seen]
    first = asked.index(stamps[0])
    assert stamps == asked[first : first + len(stamps)]


class Marked(SteadyPolicy):
    """Retains the one patch, of each camera, that is brightest."""

    def predict_chunk(self, observation: Observation) -> ActionChunk:
        chunk = SteadyPolicy.predict_chunk(self, observation)
        for name, mask in chunk.keep_masks.items():
            height, width = observation.images[name].shape[:2]
            patches = observation.images[name][..., 0].reshape(4, height // 4, 4, width // 4).mean((1, 3))
            mask[...] = patches == patches.max()
        return chunk


@pytest.mark.parametrize("upside_down", ["", "wrist", "third_person wrist"])
def test_masks_and_overlays_lie_on_the_pixels_they_stand_for(make_bench: MakeBench, upside_down: str) -> None:
    bench = make_bench(Marked(), camera__upside_down=upside_down)
    bench.robot.pixels = np.zeros((48, 64, 3), np.uint8)
    bench.robot.pixels[12:24, 48:64] = 255  # patch (1, 3) of 4 x 4
    bench.activate()
    bench.robot.instruct("go")
    topics = [f"/policy/{kind}/wrist" for kind in ("retained_tokens", "overlay")]
    masks, overlays = (hear(bench, Image, topic) for topic in topics)
    (record, *_) = hear_records(bench, 1)
    bench.wait_until(lambda: masks and overlays, "pictures")
    mask = image_from_message(masks[0])[..., 0]
    assert np.argwhere(mask).tolist() == [[1, 3]]
    assert record.cameras["wrist"].retained == (7,)
    assert record.cameras["wrist"].upside_down == ("wrist" in upside_down)
    shown = image_from_message(overlays[0])
    assert (shown[14:22, 50:60] == 255).all()
    assert shown[30:].max() < 128
    seen = bench.policy.seen[-1].images["wrist"].tobytes()
    turned = bench.robot.pixels[::-1, ::-1] if "wrist" in upside_down else bench.robot.pixels
    assert seen == turned.tobytes()


def test_an_unknown_camera_is_not_upside_down(make_bench: MakeBench) -> None:
    bench = make_bench(camera__upside_down="wrist elbow")
    assert not bench.configure()
    assert "camera.upside_down; got elbow" in bench.node.refusal


def test_nothing_is_drawn_while_nobody_listens(moving: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[str] = []
    outputs = moving.node.session._seen
    publish = outputs._publish
    monkeypatch.setattr(outputs._thread, "_handle", lambda item: (drawn.append("one"), publish(item)))
    before = len(moving.policy.seen)
    moving.wait_until(lambda: len(moving.policy.seen) > before + 5, "inferences")
    assert not drawn
    hear(moving, Image, "/policy/overlay/wrist")
    moving.wait_until(lambda: drawn, "a picture")


def test_a_picture_that_takes_long_delays_no_chunk(moving: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()
    monkeypatch.setattr(moving.node.session._seen._thread, "_handle", lambda item: released.wait(20.0))
    hear(moving, Image, "/policy/overlay/wrist")
    moving.wait_until(lambda: moving.node.session._seen.dropped > 3, "pictures that are dropped")
    moving.wait_for_motion()
    released.set()


def test_a_picture_that_fails_stops_nothing(moving: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[object] = []

    def fail(item: object) -> None:
        tried.append(item)
        raise ValueError("no paint")

    monkeypatch.setattr(moving.node.session._seen._thread, "_handle", fail)
    hear(moving, Image, "/policy/overlay/wrist")
    moving.wait_until(lambda: len(tried) > 2, "pictures")
    moving.wait_for_motion()
    assert moving.reason is None
