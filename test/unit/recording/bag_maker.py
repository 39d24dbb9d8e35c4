"""Bags made of messages as ROS would have serialised them, without ROS."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rosbags.typesys import Stores, get_typestore

from lightvla_ros.core.grid_region import grid_region
from lightvla_ros.core.inference_record import CameraRecord, InferenceRecord
from lightvla_ros.recording.bag import BagWriter, TopicOffer

STORE = get_typestore(Stores.ROS2_HUMBLE)
TYPES = STORE.types
CAMERAS = {"third_person": "/cam/front", "wrist": "/cam/wrist"}
PERIOD_NS = 100_000_000
FIRST_NS = 1_700_000_000_000_000_000

Image = np.ndarray[Any, np.dtype[np.uint8]]


def picture(number: int) -> Image:
    """A picture that tells which one it is: uint8 [32, 48, 3], red and green by number."""
    image = np.zeros((32, 48, 3), dtype=np.uint8)
    image[..., 0], image[..., 1] = 40 * number % 256, 255 - 40 * number % 256
    return image


def header(stamp_ns: int) -> Any:
    stamp = TYPES["builtin_interfaces/msg/Time"](sec=stamp_ns // 10**9, nanosec=stamp_ns % 10**9)
    return TYPES["std_msgs/msg/Header"](stamp=stamp, frame_id="camera")


def image_message(stamp_ns: int, image: Image, *, encoding: str = "rgb8") -> bytes:
    height, width, channels = image.shape
    message = TYPES["sensor_msgs/msg/Image"](
        header=header(stamp_ns),
        height=height,
        width=width,
        encoding=encoding,
        is_bigendian=0,
        step=channels * width,
        data=image.reshape(-1),
    )
    return bytes(STORE.serialize_cdr(message, message.__msgtype__))


def compressed_message(stamp_ns: int, image: Image) -> bytes:
    png = cv2.imencode(".png", image[..., ::-1])[1]
    message = TYPES["sensor_msgs/msg/CompressedImage"](header=header(stamp_ns), format="png", data=png)
    return bytes(STORE.serialize_cdr(message, message.__msgtype__))


def text_message(text: str) -> bytes:
    message = TYPES["std_msgs/msg/String"](data=text)
    return bytes(STORE.serialize_cdr(message, message.__msgtype__))


def record(number: int, *, epoch: int = 1, instruction: str = "push") -> InferenceRecord:
    """The inference from the pictures of that number, which retains so many patches."""
    stamp_ns = FIRST_NS + number * PERIOD_NS
    cameras = {
        name: CameraRecord(
            topic=topic,
            stamp_ns=stamp_ns,
            upside_down=False,
            grid=(4, 4),
            region=grid_region(32, 48),
            retained=tuple(range(1 + number % 15)),
        )
        for name, topic in CAMERAS.items()
    }
    return InferenceRecord(
        stamp_ns=stamp_ns,
        engine="mini",
        backend="onnxruntime",
        instruction=instruction,
        epoch=epoch,
        state=(0.5,) * 8,
        actions=((0.1 * number,) * 7,) * 8,
        step_period_ns=50_000_000,
        taken=True,
        timings_ms={"vision": 1.0},
        cameras=cameras,
    )


class Bags:
    """Makes bags in a folder of the test's own."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def make(
        self,
        records: list[InferenceRecord],
        *,
        lost: Mapping[str, set[int]] | None = None,
        types: Mapping[str, str] | None = None,
        image: Callable[[int, Image], bytes] = image_message,
    ) -> Path:
        """Write images and records as a robot would have: images first, the record a little later.

        Args:
            records: made by `record`.
            lost: camera -> numbers, in `records`, of images that were not recorded.
            types: topic -> type, where it is another than usual; "" leaves the topic out.
            image: makes an image's message.
        """
        path = self._directory / f"bag{len(list(self._directory.iterdir()))}"
        usual = dict.fromkeys(CAMERAS.values(), "sensor_msgs/msg/Image")
        if image is compressed_message:
            usual = dict.fromkeys(CAMERAS.values(), "sensor_msgs/msg/CompressedImage")
        kinds = {**usual, "/policy/inference": "std_msgs/msg/String", **(types or {})}
        with BagWriter(path) as bag:
            for topic, kind in kinds.items():
                if kind:
                    offer = TopicOffer(type_name=kind, is_reliable=True, is_latched=False)
                    bag.add_topic(topic, offer)
            for index, entry in enumerate(records):
                number = (entry.stamp_ns - FIRST_NS) // PERIOD_NS
                for name, topic in CAMERAS.items():
                    if kinds[topic] and index not in (lost or {}).get(name, ()):
                        bag.write(topic, image(entry.stamp_ns, picture(number)), entry.stamp_ns + 10**6)
                if kinds["/policy/inference"]:
                    bag.write("/policy/inference", text_message(entry.to_json()), entry.stamp_ns + 3 * 10**7)
        return path
