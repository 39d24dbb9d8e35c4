"""The inferences of a recording with their images; what is missing is told by topic."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from bag_maker import CAMERAS, Bags, compressed_message, image_message, picture, record

from lightvla_ros.core.errors import LightVlaError
from lightvla_ros.core.inference_record import InferenceRecord
from lightvla_ros.recording.bag import BagReader
from lightvla_ros.recording.inferences import RecordedInferences, decode_image, stamp_of


def test_every_inference_comes_with_the_images_it_was_made_from(bags: Bags) -> None:
    records = [record(number) for number in range(6)]
    with BagReader(bags.make(records)) as bag:
        inferences = RecordedInferences(bag)
        assert inferences.records == records
        found = list(inferences.with_images(inferences.records))
        assert [inference.record for inference in found] == records
        for number, inference in enumerate(found):
            for name, topic in CAMERAS.items():
                assert inference.images[name].topic == topic
                np.testing.assert_array_equal(decode_image(bag, inference.images[name]), picture(number))


def test_images_of_other_moments_are_passed_over(bags: Bags) -> None:
    with BagReader(bags.make([record(number) for number in range(6)])) as bag:
        inferences = RecordedInferences(bag)
        found = list(inferences.with_images(inferences.records[1::2]))
        assert [inference.record for inference in found] == [record(number) for number in (1, 3, 5)]


def test_two_inferences_from_one_image_both_come(bags: Bags) -> None:
    twice = [record(0), record(1), record(1, epoch=2)]
    with BagReader(bags.make(twice)) as bag:
        inferences = RecordedInferences(bag)
        assert [inference.record for inference in inferences.with_images(inferences.records)] == twice


def test_an_inference_that_lacks_an_image_is_left_out(bags: Bags) -> None:
    path = bags.make([record(number) for number in range(4)], lost={"wrist": {1}, "third_person": {2}})
    with BagReader(path) as bag:
        inferences = RecordedInferences(bag)
        assert len(inferences.records) == 4
        assert [found.record for found in inferences.with_images(inferences.records)] == [
            record(0),
            record(3),
        ]


@pytest.mark.parametrize("encoding", ["rgb8", "bgr8", "png"])
def test_images_are_decoded_to_rgb(bags: Bags, encoding: str) -> None:
    def bgr(stamp_ns: int, image: np.ndarray) -> bytes:
        return image_message(stamp_ns, image[..., ::-1], encoding="bgr8")

    makers: dict[str, Callable[..., bytes]] = {"rgb8": image_message, "bgr8": bgr, "png": compressed_message}
    with BagReader(bags.make([record(2)], image=makers[encoding])) as bag:
        (inference,) = RecordedInferences(bag).with_images([record(2)])
        np.testing.assert_array_equal(decode_image(bag, inference.images["wrist"]), picture(2))


def test_an_image_of_an_unknown_encoding_is_refused_by_topic(bags: Bags) -> None:
    def strange(stamp_ns: int, image: np.ndarray) -> bytes:
        return image_message(stamp_ns, image, encoding="smell8")

    with BagReader(bags.make([record(0)], image=strange)) as bag:
        (inference,) = RecordedInferences(bag).with_images([record(0)])
        with pytest.raises(LightVlaError, match=r"image on /cam/front; got 'smell8'"):
            decode_image(bag, inference.images["third_person"])


def test_the_stamp_is_read_from_the_serialised_header() -> None:
    assert stamp_of(image_message(1_700_000_000_123_456_789, picture(0))) == 1_700_000_000_123_456_789


@pytest.mark.parametrize(
    ("types", "message"),
    [
        (
            {"/policy/inference": ""},
            r"topic /policy/inference of .*got no such topic; the bag has /cam/front, /cam/",
        ),
        (
            {"/policy/inference": "std_msgs/msg/Bool"},
            r"topic /policy/inference of .*got messages of std_msgs/msg/Bool",
        ),
        ({"/cam/wrist": ""}, r"topic /cam/wrist of .*got no such topic.*the images the policy was shown"),
        ({"/cam/wrist": "std_msgs/msg/String"}, r"topic /cam/wrist of .*got messages of std_msgs/msg/String"),
        (
            {"/b/policy/inference": "std_msgs/msg/String"},
            r"inferences of several nodes: /b/policy/inference, /pol",
        ),
    ],
)
def test_a_topic_that_is_missing_or_of_another_type_is_told(
    bags: Bags, types: dict[str, str], message: str
) -> None:
    with BagReader(bags.make([record(0)], types=types)) as bag, pytest.raises(LightVlaError, match=message):
        RecordedInferences(bag)


def test_a_recording_without_an_inference_is_told(bags: Bags) -> None:
    with BagReader(bags.make([])) as bag, pytest.raises(LightVlaError, match="an instruction under which"):
        RecordedInferences(bag)


def test_the_inferences_of_a_node_in_a_namespace_are_found(bags: Bags) -> None:
    types = {"/policy/inference": "", "/robot1/policy/inference": "std_msgs/msg/String"}
    with (
        BagReader(bags.make([], types=types)) as bag,
        pytest.raises(LightVlaError, match="/robot1/policy/infer"),
    ):
        RecordedInferences(bag)


def test_records_are_sorted_by_their_observation(bags: Bags) -> None:
    shuffled: list[InferenceRecord] = [record(2), record(0), record(1)]
    with BagReader(bags.make(shuffled)) as bag:
        assert RecordedInferences(bag).records == [record(0), record(1), record(2)]
