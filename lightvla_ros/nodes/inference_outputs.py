"""What may be seen of an inference, for whoever listens: its record, patch grids and overlays."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray
from sensor_msgs.msg import Image
from std_msgs.msg import String

from lightvla_ros.core.background import Background
from lightvla_ros.core.config import NodeConfig
from lightvla_ros.core.frame_pairing import StampedObservation
from lightvla_ros.core.grid_region import grid_region
from lightvla_ros.core.inference_record import CameraRecord, InferenceRecord
from lightvla_ros.core.observation import ActionChunk
from lightvla_ros.core.policy import PolicySpec
from lightvla_ros.nodes import qos
from lightvla_ros.nodes.entities import Entities
from lightvla_ros.nodes.outputs import write_time
from lightvla_ros.view.overlay import mask_image, overlay

_Scalar = TypeVar("_Scalar", np.uint8, np.bool_)


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


class RecordOutput:
    """The topic of inference records."""

    def __init__(self, entities: Entities) -> None:
        self._publisher = entities.publisher(String, "policy/inference", qos.RECORD)

    @property
    def is_wanted(self) -> bool:
        """Whether anybody listens."""
        return self._publisher.get_subscription_count() > 0

    def publish(self, record: InferenceRecord) -> None:
        """Publish one record."""
        self._publisher.publish(String(data=record.to_json()))


class _Inference(NamedTuple):
    observation: StampedObservation
    chunk: ActionChunk
    taken: bool


class InferenceOutputs:
    """Draws and publishes in a thread of its own: neither the next inference nor a command waits for it.

    Args:
        entities: owns the publishers.
        config: which pictures are offered, and how the cameras are mounted.
        spec: cameras and geometry of the policy.
        camera_topics: camera name -> full name of its topic.
        on_error: takes whatever goes wrong, in that thread.
    """

    def __init__(
        self,
        entities: Entities,
        *,
        config: NodeConfig,
        spec: PolicySpec,
        camera_topics: Mapping[str, str],
        on_error: Callable[[Exception], None],
    ) -> None:
        self._spec = spec
        self._topics = camera_topics
        self._upside_down = config.camera.upside_down_names
        cameras = spec.camera_names
        self._record = RecordOutput(entities)
        self._tokens = _images(
            entities, "policy/retained_tokens", "mono8", cameras if config.masks.tokens else ()
        )
        self._overlays = _images(entities, "policy/overlay", "rgb8", cameras if config.masks.overlay else ())
        self._thread = Background[_Inference](
            name="inference outputs", handle=self._publish, on_error=on_error
        )

    @property
    def dropped(self) -> int:
        """Inferences of which nothing was published because the thread fell behind."""
        return self._thread.dropped

    def submit(self, observation: StampedObservation, chunk: ActionChunk, *, taken: bool) -> None:
        """Publish what is wanted of one inference, soon; does nothing while nobody listens."""
        pictures = (*self._tokens.values(), *self._overlays.values())
        if self._record.is_wanted or any(picture.is_wanted for picture in pictures):
            self._thread.submit(_Inference(observation, chunk, taken))

    def close(self) -> None:
        """End the thread; call before the publishers are destroyed."""
        self._thread.stop()

    def _publish(self, inference: _Inference) -> None:
        record = self._recorded(inference)
        if self._record.is_wanted:
            self._record.publish(record)
        for name, camera in record.cameras.items():
            tokens, overlays = self._tokens.get(name), self._overlays.get(name)
            if tokens is not None and tokens.is_wanted:
                tokens.publish(mask_image(camera.keep_mask), camera.stamp_ns, name)
            if overlays is not None and overlays.is_wanted:
                image = self._as_published(name, inference.observation.images[name])
                overlays.publish(overlay(image, camera.keep_mask, camera.region), camera.stamp_ns, name)

    def _recorded(self, inference: _Inference) -> InferenceRecord:
        observation, chunk, taken = inference
        return InferenceRecord(
            stamp_ns=chunk.stamp_ns,
            engine=self._spec.name,
            backend=self._spec.backend,
            instruction=chunk.instruction,
            epoch=chunk.epoch,
            state=tuple(observation.proprio.tolist()),
            actions=tuple(tuple(step) for step in chunk.actions.tolist()),
            step_period_ns=chunk.step_period_ns,
            taken=taken,
            timings_ms=dict(chunk.timings_ms),
            cameras={
                name: self._camera(name, observation, keep_mask)
                for name, keep_mask in chunk.keep_masks.items()
            },
        )

    def _camera(
        self, name: str, observation: StampedObservation, keep_mask: NDArray[np.bool_]
    ) -> CameraRecord:
        height, width = observation.images[name].shape[:2]
        rows, columns = keep_mask.shape
        return CameraRecord(
            topic=self._topics[name],
            stamp_ns=observation.image_stamps_ns[name],
            upside_down=name in self._upside_down,
            grid=(rows, columns),
            # The region is symmetric, so turning the image does not move it.
            region=grid_region(height, width, fit=self._spec.fit, center_crop=self._spec.center_crop),
            retained=tuple(np.flatnonzero(self._as_published(name, keep_mask)).tolist()),
        )

    def _as_published(self, name: str, array: NDArray[_Scalar]) -> NDArray[_Scalar]:
        """Undo the turn of a camera that is mounted upside down."""
        return array[::-1, ::-1] if name in self._upside_down else array


def _images(entities: Entities, prefix: str, encoding: str, cameras: Iterable[str]) -> dict[str, ImageOutput]:
    return {camera: ImageOutput(entities, f"{prefix}/{camera}", encoding) for camera in cameras}
