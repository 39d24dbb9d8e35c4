"""The inferences in a recording, each with the images it was made from."""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from rosbags.image import message_to_cvimage

from lightvla_ros.core.errors import LightVlaError
from lightvla_ros.core.inference_record import InferenceRecord
from lightvla_ros.recording.bag import BagMessage, BagReader

RECORD_TOPIC = "policy/inference"
RECORD_TYPE = "std_msgs/msg/String"
# topic and stamp, nanoseconds
_Key: TypeAlias = tuple[str, int]
IMAGE_TYPES = ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage")


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedInference:
    """One inference.

    Attributes:
        record: what it got and gave.
        images: camera name -> message of the image.
    """

    record: InferenceRecord
    images: Mapping[str, BagMessage]


class RecordedInferences:
    """The inferences of a bag.

    Args:
        bag: the open bag.

    Attributes:
        records: every inference, oldest first, whether its images were recorded or not.

    Raises:
        LightVlaError: the bag has no inference, two nodes' inferences, or lacks a topic of images.
    """

    def __init__(self, bag: BagReader) -> None:
        self._bag = bag
        topic = _record_topic(bag)
        self.records = sorted(
            (InferenceRecord.from_json(bag.decoded(message).data) for message in bag.messages({topic})),
            key=lambda record: record.stamp_ns,
        )
        if not self.records:
            raise _missing(bag, topic, "no message", "an instruction under which the policy acted")
        for image_topic in sorted({key[0] for record in self.records for key in _keys(record).values()}):
            self._check(image_topic)

    def with_images(self, records: Iterable[InferenceRecord]) -> Iterator[RecordedInference]:
        """Read the images of some inferences, one inference at a time; those that lack one are left out.

        Args:
            records: some of `records`.
        """
        waiting: dict[_Key, list[InferenceRecord]] = defaultdict(list)
        for record in records:
            for key in _keys(record).values():
                waiting[key].append(record)
        found: dict[_Key, BagMessage] = {}
        for message in self._bag.messages({topic for topic, _ in waiting}):
            key = message.topic, stamp_of(message.data)
            if key in found or key not in waiting:
                continue
            found[key] = message
            for record in tuple(waiting[key]):
                keys = _keys(record)
                if all(wanted in found for wanted in keys.values()):
                    yield RecordedInference(
                        record=record, images={name: found[wanted] for name, wanted in keys.items()}
                    )
                    for wanted in keys.values():
                        waiting[wanted].remove(record)
                        if not waiting[wanted]:
                            del waiting[wanted], found[wanted]

    def _check(self, topic: str) -> None:
        got = self._bag.topics.get(topic)
        if got is None:
            raise _missing(self._bag, topic, "no such topic", "the images the policy was shown")
        if got not in IMAGE_TYPES:
            raise _missing(self._bag, topic, f"messages of {got}", f"{' or '.join(IMAGE_TYPES)}")


def decode_image(bag: BagReader, message: BagMessage) -> NDArray[np.uint8]:
    """Decode an image message, raw or compressed, into uint8 [H, W, 3] RGB.

    Raises:
        LightVlaError: it is no image that can be shown in colours.
    """
    image = bag.decoded(message)
    try:
        return np.asarray(message_to_cvimage(image, "rgb8"), dtype=np.uint8)
    except Exception as error:  # the library's own errors and OpenCV's
        raise LightVlaError(
            f"image on {message.topic}",
            got=f"{getattr(image, 'encoding', getattr(image, 'format', '?'))!r} ({error})",
            expected="an encoding that turns into rgb8",
        ) from error


def stamp_of(data: bytes) -> int:
    """Read the stamp, nanoseconds, from a serialised message that begins with a std_msgs/Header."""
    order = "<" if data[1] else ">"
    seconds, nanoseconds = struct.unpack_from(f"{order}iI", data, 4)
    return int(seconds) * 1_000_000_000 + int(nanoseconds)


def _keys(record: InferenceRecord) -> dict[str, _Key]:
    return {name: (camera.topic, camera.stamp_ns) for name, camera in record.cameras.items()}


def _record_topic(bag: BagReader) -> str:
    topics = [
        topic
        for topic, kind in bag.topics.items()
        if kind == RECORD_TYPE and (topic == f"/{RECORD_TOPIC}" or topic.endswith(f"/{RECORD_TOPIC}"))
    ]
    if len(topics) == 1:
        return topics[0]
    if topics:
        raise LightVlaError(
            f"recording {bag.directory}",
            got=f"inferences of several nodes: {', '.join(sorted(topics))}",
            expected="those of one",
            fix="record each with its own `lightvla record --node`",
        )
    other = bag.topics.get(f"/{RECORD_TOPIC}")
    got = "no such topic" if other is None else f"messages of {other}"
    raise _missing(bag, f"/{RECORD_TOPIC}", got, f"{RECORD_TYPE}: what each inference got and gave")


def _missing(bag: BagReader, topic: str, got: str, expected: str) -> LightVlaError:
    return LightVlaError(
        f"topic {topic} of recording {bag.directory}",
        got=f"{got}; the bag has {', '.join(sorted(bag.topics)) or 'no topic'}",
        expected=expected,
        fix="record with `lightvla record`, which takes all that the policy node hears and says",
    )
