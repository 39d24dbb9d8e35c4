"""Pictures of what the pruner kept, for whoever listens."""

from __future__ import annotations

from array import array

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import Image

from lightvla_ros.core.frame_pairing import StampedObservation
from lightvla_ros.core.observation import ActionChunk
from lightvla_ros.core.output_config import MaskConfig
from lightvla_ros.nodes import qos
from lightvla_ros.nodes.entities import Entities
from lightvla_ros.nodes.outputs import write_time
from lightvla_ros.view.overlay import mask_image, overlay


class ImageOutput:
    """One image topic; the message is made anew only when the size changes."""

    def __init__(self, entities: Entities, topic: str, encoding: str) -> None:
        self._publisher = entities.publisher(Image, topic, qos.PICTURE)
        self._message = Image(encoding=encoding)

    @property
    def is_wanted(self) -> bool:
        """Whether anybody listens."""
        return self._publisher.get_subscription_count() > 0

    def publish(self, image: NDArray[np.uint8], stamp_ns: int, frame_id: str) -> None:
        """Publish uint8 [H, W] or [H, W, C]."""
        message = self._message
        height, width = image.shape[:2]
        if (message.height, message.width) != (height, width):
            message.height, message.width, message.step = height, width, image.nbytes // height
            message.data = array("B", bytes(image.nbytes))
        # Assigning an ndarray to `data` copies item by item; writing through a view takes microseconds.
        np.frombuffer(message.data, dtype=np.uint8)[:] = image.reshape(-1)
        write_time(message.header.stamp, stamp_ns)
        message.header.frame_id = frame_id
        self._publisher.publish(message)


class MaskOutputs:
    """Patch grids and overlays of every camera."""

    def __init__(self, entities: Entities, config: MaskConfig, cameras: tuple[str, ...]) -> None:
        self._tokens = _outputs(entities, "policy/retained_tokens", "mono8", cameras) if config.tokens else {}
        self._overlays = _outputs(entities, "policy/overlay", "rgb8", cameras) if config.overlay else {}

    def publish(self, observation: StampedObservation, chunk: ActionChunk) -> None:
        """Publish what is wanted of one chunk, each picture with the stamp of its own image."""
        for camera, keep_mask in chunk.keep_masks.items():
            stamp_ns = observation.image_stamps_ns[camera]
            tokens, overlays = self._tokens.get(camera), self._overlays.get(camera)
            if tokens is not None and tokens.is_wanted:
                tokens.publish(mask_image(keep_mask), stamp_ns, camera)
            if overlays is not None and overlays.is_wanted:
                overlays.publish(overlay(observation.images[camera], keep_mask), stamp_ns, camera)


def _outputs(
    entities: Entities, prefix: str, encoding: str, cameras: tuple[str, ...]
) -> dict[str, ImageOutput]:
    return {camera: ImageOutput(entities, f"{prefix}/{camera}", encoding) for camera in cameras}
