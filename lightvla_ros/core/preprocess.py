"""Camera image to pixel values as in training: JPEG, Lanczos-3, centre crop, normalisation.

Reproduces the reference's TensorFlow pipeline without TensorFlow (spec §1). `ImagePreprocessor` is what
runs per observation; `resize_224`, `center_crop` and `pixel_values` are its steps one by one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import lru_cache, partial
from typing import Literal, cast, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from lightvla_ros.core.errors import ConfigError, ObservationError
from lightvla_ros.core.resample import (
    Scratch,
    center_cropped_planes,
    central_square,
    lanczos_columns,
    lanczos_rows,
    padded_planes,
    padded_sides,
)

Fit = Literal["stretch", "pad", "crop"]
Image = NDArray[np.uint8]

# Mean and standard deviation per channel. DINOv2's are ImageNet's rounded to bf16: those are stored with the
# published checkpoints and in force in training and evaluation (spec §1.3).
NORMALIZATIONS = {
    "dinov2": ((0.484375, 0.455078125, 0.40625), (0.228515625, 0.2236328125, 0.224609375)),
    "siglip": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}
JPEG_PARAMETERS = (
    cv2.IMWRITE_JPEG_QUALITY,
    95,
    cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
    cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420,
)
# Robots have two or three cameras, and the caller's thread takes the first.
MAX_HELPERS = 3


class ImagePreprocessor:
    """Turn the camera images of one observation into the model's pixel values.

    One caller at a time: work arrays are kept between calls. A result is never written again. JPEG of
    several cameras runs side by side, in threads that all preprocessors of the process share.

    Args:
        image_size: side S of the model's square input, pixels.
        normalizations: pixel statistics of the vision towers in channel order, "dinov2" or "siglip".
        jpeg: pass images through JPEG first, as the training data were (needs simplejpeg).
        center_crop: keep the central 0.9 of the area, as policies trained with random crops expect.
        fit: what happens to an image that is not square: "stretch" as the reference, "pad" with black to a
            square, or "crop" its central square.

    Raises:
        ConfigError: an option is unknown or out of range, or simplejpeg is needed and missing.
    """

    def __init__(
        self,
        *,
        image_size: int = 224,
        normalizations: Sequence[str] = ("dinov2", "siglip"),
        jpeg: bool = True,
        center_crop: bool = True,
        fit: Fit = "stretch",
    ) -> None:
        _check_options(image_size, fit)
        if jpeg:
            _jpeg_decoder()
        self.image_size = image_size
        self.jpeg = jpeg
        self.center_crop = center_crop
        self.fit: Fit = fit
        self._scratch = Scratch()
        self._jpeg_scratches: list[Scratch] = []
        # Per tower float32 [3, 256]: the pixel value of each byte, by channel.
        self.tables = [_normalization_table(name) for name in normalizations]

    def __call__(self, images: Sequence[Image]) -> NDArray[np.float32]:
        """Prepare one image per camera.

        Args:
            images: uint8 [H, W, 3] RGB each, any size, in the model's camera order.

        Returns:
            float32 [1, cameras * towers * 3, S, S], a new array; per camera all towers in order.

        Raises:
            ObservationError: an image has another dtype or shape.
        """
        channels, scratch = 3 * len(self.tables), self._scratch
        result = np.empty((1, len(images) * channels, self.image_size, self.image_size), dtype=np.float32)
        for index, pixels in enumerate(self.compressed(images)):
            planes = _resized_planes(pixels, self.image_size, self.fit, scratch)
            cropped = center_cropped_planes(planes, scratch) if self.center_crop else planes.astype(np.uint8)
            _normalize_into(result[0, index * channels : (index + 1) * channels], cropped, self.tables)
        return result

    def compressed(self, images: Sequence[Image]) -> Iterator[Image]:
        """Yield each camera's uint8 [H, W, 3] before its resize, valid until the next call; raises as one."""
        self._jpeg_scratches += [Scratch() for _ in range(len(images) - len(self._jpeg_scratches))]
        jobs = [
            partial(_compressed, image, self.image_size, self.jpeg, self.fit, scratch)
            for image, scratch in zip(images, self._jpeg_scratches, strict=False)
        ]
        # The filters are many short calls, which side by side would wait for the GIL and for each other.
        helpers = [_helpers(os.getpid()).submit(job) for job in jobs[1:]] if self.jpeg else []
        try:
            yield from (job() for job in jobs[: len(jobs) - len(helpers)])
            yield from (helper.result() for helper in helpers)
        finally:
            wait(helpers)  # also after an error: the work arrays are the next call's


@lru_cache(maxsize=1)
def _helpers(process_id: int) -> ThreadPoolExecutor:
    """Make the threads of this process: a forked one has none of its parent's."""
    return ThreadPoolExecutor(MAX_HELPERS, thread_name_prefix="camera")


def resize_224(image: Image, *, jpeg: bool = True) -> Image:
    """Resize a camera image to the 224 x 224 of the published checkpoints; see `resize`."""
    return resize(image, 224, jpeg=jpeg)


def resize(image: Image, size: int, *, jpeg: bool = True, fit: Fit = "stretch") -> Image:
    """Resize a camera image as the training data were: JPEG round trip, then Lanczos-3 with antialias.

    Args:
        image: uint8 [H, W, 3] RGB. One that is already size x size is returned as a plain copy.
        size: side S of the result, pixels.
        jpeg: pass the image through JPEG (quality 95, 4:2:0, fast integer inverse DCT) first.
        fit: "stretch" to a square, "pad" with black to a square, or "crop" the central square first.

    Returns:
        uint8 [S, S, 3] RGB, rounded half to even.

    Raises:
        ObservationError: the image has another dtype or shape.
        ConfigError: `size` or `fit` is not allowed, or simplejpeg is needed and missing.
    """
    _check_options(size, fit)
    pixels = _compressed(image, size, jpeg, fit, Scratch())
    return _interleaved(_resized_planes(pixels, size, fit, Scratch()).astype(np.uint8))


def center_crop(image: Image) -> Image:
    """Crop the central 0.9 of the area and stretch it back, bilinear.

    Args:
        image: uint8 [S, S, 3] RGB, square, of any size.

    Returns:
        uint8 [S, S, 3] RGB; output j of an axis is sampled at (S - 1)(1 - s) / 2 + j s with s = sqrt(0.9).

    Raises:
        ObservationError: the image has another dtype or shape, or is not square.
    """
    checked = _checked(image)
    if checked.shape[0] != checked.shape[1]:
        raise ObservationError(
            "image to crop",
            got=f"shape {checked.shape}",
            expected="a square image",
            fix="call `resize` first",
        )
    return _interleaved(center_cropped_planes(_planes(checked).astype(np.float32), Scratch()))


def pixel_values(image: Image, normalizations: Sequence[str] = ("dinov2", "siglip")) -> NDArray[np.float32]:
    """Normalise an image once per vision tower.

    Args:
        image: uint8 [H, W, 3] RGB.
        normalizations: pixel statistics of the towers, "dinov2" or "siglip".

    Returns:
        float32 [3 * towers, H, W]: (x / 255 - mean) / std, towers one after another.

    Raises:
        ObservationError: the image has another dtype or shape.
        ConfigError: a normalisation is unknown.
    """
    planes = _planes(_checked(image))
    result = np.empty((3 * len(normalizations), *planes.shape[1:]), dtype=np.float32)
    _normalize_into(result, planes, [_normalization_table(name) for name in normalizations])
    return result


def _compressed(image: Image, size: int, jpeg: bool, fit: Fit, scratch: Scratch) -> Image:
    """Check an image and do what comes before its resize; the result may be a work array."""
    image = _checked(image)
    if fit == "crop":
        image = central_square(image)
    return _jpeg_round_trip(image, scratch) if jpeg and image.shape[:2] != (size, size) else image


def _resized_planes(image: Image, size: int, fit: Fit, scratch: Scratch) -> NDArray[np.float32]:
    """Resize uint8 [H, W, 3] to whole numbers in float32 [3, size, size]."""
    if image.shape[:2] == (size, size):
        return _planes(image).astype(np.float32)
    height, width = padded_sides(image.shape, size) if fit == "pad" else (size, size)
    # Rows first: they are contiguous as they come, and fewer of them are left to be split into planes.
    rows = lanczos_rows(image, height, scratch)
    planes = scratch.array("planes", 3, *rows.shape[:2])
    cv2.split(rows, list(planes))
    return padded_planes(lanczos_columns(planes, width, scratch), size)


def _normalize_into(
    result: NDArray[np.float32], planes: NDArray[np.uint8], tables: Sequence[NDArray[np.float32]]
) -> None:
    """Fill float32 [towers * 3, H, W] from uint8 [3, H, W] by table look-up."""
    for tower, table in enumerate(tables):
        for channel, plane in enumerate(planes):
            cv2.LUT(plane, table[channel], dst=result[tower * 3 + channel])


@lru_cache
def _normalization_table(name: str) -> NDArray[np.float32]:
    """Tabulate (x / 255 - mean) / std as float32 [3, 256]."""
    if name not in NORMALIZATIONS:
        raise ConfigError(
            "normalisation of a vision tower",
            got=repr(name),
            expected=f"one of {[*NORMALIZATIONS]}",
            fix="correct normalizations in the policy section of manifest.json or lightvla.json",
        )
    mean, std = (np.array(values, dtype=np.float32)[:, None] for values in NORMALIZATIONS[name])
    scaled = np.arange(256, dtype=np.float32) / np.float32(255.0)
    table: NDArray[np.float32] = (scaled - mean) / std
    return table


def _jpeg_round_trip(image: Image, scratch: Scratch) -> Image:
    """Encode and decode uint8 [H, W, 3]; the result is a work array."""
    # OpenCV encodes: its bytes are those of Pillow, while simplejpeg takes the fast DCT below quality 96
    # whatever it is told. simplejpeg decodes: only it offers the fast inverse DCT that TensorFlow uses.
    pixels = scratch.byte_array("jpeg", *image.shape)
    _, encoded = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR, dst=pixels), JPEG_PARAMETERS)
    return _jpeg_decoder()(encoded, fastdct=True, fastupsample=False, buffer=pixels)


@lru_cache
def _jpeg_decoder() -> Callable[..., Image]:
    try:
        from simplejpeg import decode_jpeg
    except ImportError as error:
        raise ConfigError(
            "JPEG round trip of camera images",
            got="simplejpeg is not installed",
            expected="simplejpeg, whose decoder is bit-equal to the reference's",
            fix="pip install simplejpeg, or set jpeg to False for a policy trained without it",
        ) from error
    return cast("Callable[..., Image]", decode_jpeg)


def _planes(image: Image) -> NDArray[np.uint8]:
    """Split [H, W, 3] into contiguous [3, H, W]."""
    planes = np.empty((3, *image.shape[:2]), dtype=np.uint8)
    cv2.split(image, list(planes))
    return planes


def _interleaved(planes: NDArray[np.uint8]) -> Image:
    return cast(Image, cv2.merge(list(planes)))


def _checked(image: Image) -> Image:
    is_image = isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3
    if not is_image or image.shape[2] != 3 or image.size == 0:
        raise ObservationError(
            "camera image",
            got=f"{image.dtype} {image.shape}" if isinstance(image, np.ndarray) else type(image).__name__,
            expected="a uint8 array [H, W, 3], RGB, not empty",
            fix="convert the camera's encoding to rgb8 before it gets here",
        )
    return np.ascontiguousarray(image)


def _check_options(size: int, fit: str) -> None:
    if size < 1:
        raise ConfigError("image size", got=size, expected="at least 1 pixel", fix="pass the model's size")
    if fit not in get_args(Fit):
        raise ConfigError(
            "fit of non-square images",
            got=repr(fit),
            expected=f"one of {[*get_args(Fit)]}",
            fix="correct fit in the policy section of manifest.json or lightvla.json",
        )
