"""Camera image to pixel values as in training: JPEG, Lanczos-3, centre crop, normalisation.

Reproduces the reference's TensorFlow pipeline without TensorFlow (spec §1). `ImagePreprocessor` is what
runs per observation; `resize_224`, `center_crop` and `pixel_values` are its steps one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Literal, cast, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from lightvla_ros.core.errors import ConfigError, ObservationError
from lightvla_ros.core.resample import Scratch, center_crop_filter, lanczos_filter

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
# The reference crops in [0, 1] and goes back to bytes by truncating x * 255.5.
TO_BYTES = np.float32(255.5 / 255.0)


class ImagePreprocessor:
    """Turn the camera images of one observation into the model's pixel values.

    One caller at a time: work arrays are kept between calls. A result is never written again.

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
        self._tables = [_normalization_table(name) for name in normalizations]

    def __call__(self, images: Sequence[Image]) -> NDArray[np.float32]:
        """Prepare one image per camera.

        Args:
            images: uint8 [H, W, 3] RGB each, any size, in the model's camera order.

        Returns:
            float32 [1, cameras * towers * 3, S, S], a new array; per camera all towers in order.

        Raises:
            ObservationError: an image has another dtype or shape.
        """
        channels = 3 * len(self._tables)
        result = np.empty((1, len(images) * channels, self.image_size, self.image_size), dtype=np.float32)
        for index, image in enumerate(images):
            planes = _resized_planes(_checked(image), self.image_size, self.jpeg, self.fit, self._scratch)
            cropped = _cropped_planes(planes, self._scratch) if self.center_crop else planes.astype(np.uint8)
            _normalize_into(result[0, index * channels : (index + 1) * channels], cropped, self._tables)
        return result


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
    return _interleaved(_resized_planes(_checked(image), size, jpeg, fit, Scratch()).astype(np.uint8))


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
    return _interleaved(_cropped_planes(_planes(checked).astype(np.float32), Scratch()))


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


def _resized_planes(image: Image, size: int, jpeg: bool, fit: Fit, scratch: Scratch) -> NDArray[np.float32]:
    """Resize uint8 [H, W, 3] to whole numbers in float32 [3, size, size]."""
    if fit == "crop":
        image = _central_square(image)
    if image.shape[:2] == (size, size):
        return _planes(image).astype(np.float32)
    if jpeg:
        image = _jpeg_round_trip(image)
    if fit == "pad":
        return _padded_planes(image, size, scratch)
    return _lanczos_planes(image, size, size, scratch)


def _lanczos_planes(image: Image, height: int, width: int, scratch: Scratch) -> NDArray[np.float32]:
    """Resize uint8 [H, W, 3] to whole numbers in float32 [3, height, width]."""
    input_height, input_width, _ = image.shape
    # Rows first: they are contiguous as they come, and fewer of them are left to be split into planes.
    pixels = scratch.array("pixels", input_height, input_width * 3)
    np.copyto(pixels, image.reshape(pixels.shape))
    rows = scratch.array("rows", height, input_width * 3)
    lanczos_filter(input_height, height).along_rows(pixels, out=rows)
    planes = scratch.array("planes", 3, height, input_width)
    cv2.split(rows.reshape(height, input_width, 3), list(planes))
    resized = scratch.array("resized", 3, height, width)
    lanczos_filter(input_width, width).along_columns(planes, out=resized)
    np.rint(resized, out=resized)
    return np.clip(resized, 0.0, 255.0, out=resized)


def _padded_planes(image: Image, size: int, scratch: Scratch) -> NDArray[np.float32]:
    longest = max(image.shape[:2])
    height, width = (max(1, round(side * size / longest)) for side in image.shape[:2])
    top, left = (size - height) // 2, (size - width) // 2
    planes = np.zeros((3, size, size), dtype=np.float32)
    planes[:, top : top + height, left : left + width] = _lanczos_planes(image, height, width, scratch)
    return planes


def _central_square(image: Image) -> Image:
    height, width, _ = image.shape
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return np.ascontiguousarray(image[top : top + side, left : left + side])


def _cropped_planes(planes: NDArray[np.float32], scratch: Scratch) -> NDArray[np.uint8]:
    """Centre-crop float32 [3, S, S] in 0..255 to uint8 [3, S, S]."""
    crop = center_crop_filter(planes.shape[-1])
    rows = crop.along_rows(planes, out=scratch.array("cropped rows", *planes.shape))
    cropped = crop.along_columns(rows, out=scratch.array("cropped", *planes.shape))
    cropped *= TO_BYTES
    return cropped.astype(np.uint8)


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


def _jpeg_round_trip(image: Image) -> Image:
    # OpenCV encodes: its bytes are those of Pillow, while simplejpeg takes the fast DCT below quality 96
    # whatever it is told. simplejpeg decodes: only it offers the fast inverse DCT that TensorFlow uses.
    _, encoded = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), JPEG_PARAMETERS)
    return _jpeg_decoder()(encoded, fastdct=True, fastupsample=False)


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
