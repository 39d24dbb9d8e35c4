"""Pictures of what the pruner retained: patch masks, overlays and the demo's mosaic."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from lightvla_ros.core.errors import SpecError
from lightvla_ros.core.resample import CROP_AREA

Image = NDArray[np.uint8]
Mask = NDArray[np.bool_]

# Share of grey and of colour left in a pixel; what the model never saw is darker than what it dropped.
PRUNED_GREY, PRUNED_COLOUR = 0.25, 0.12
UNSEEN_GREY = 0.12
UNSEEN, PRUNED, RETAINED = range(3)

TILE_HEIGHT_PX = 256
CAPTION_HEIGHT_PX = 40
FONT = cv2.FONT_HERSHEY_SIMPLEX
WHITE, BLACK = (255, 255, 255), (0, 0, 0)


def mask_image(keep_mask: Mask) -> Image:
    """Turn bool [rows, columns] into uint8 [rows, columns]: 255 where the token was retained, else 0.

    Raises:
        SpecError: the mask is not a 2-D array of bool.
    """
    return _checked_mask(keep_mask).astype(np.uint8) * np.uint8(255)


def overlay(image_rgb: Image, keep_mask: Mask, *, center_crop: bool = True) -> Image:
    """Dim what the policy did not use in a camera image.

    Args:
        image_rgb: uint8 [H, W, 3] RGB, as the camera gave it.
        keep_mask: bool [rows, columns], the patch grid laid over the model's input.
        center_crop: whether the policy saw only the central 0.9 of the area; the rest is dimmed most.

    Returns:
        uint8 [H, W, 3], a new image: retained patches unchanged, the others dark and pale, and the
        count of retained patches in the upper left corner.

    Raises:
        SpecError: the image or the mask has another dtype or shape.
    """
    image, mask = _checked_image(image_rgb), _checked_mask(keep_mask)
    states = _pixel_states(mask, image.shape[0], image.shape[1], center_crop)
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    pruned = cv2.addWeighted(grey, PRUNED_GREY, image, PRUNED_COLOUR, 0.0)
    unseen = cv2.convertScaleAbs(grey, alpha=UNSEEN_GREY)
    result = image.copy()
    cv2.copyTo(pruned, (states == PRUNED).astype(np.uint8), result)
    cv2.copyTo(unseen, (states == UNSEEN).astype(np.uint8), result)
    _label(result, f"{np.count_nonzero(mask)}/{mask.size}")
    return result


def mosaic(
    images: Mapping[str, Image], keep_masks: Mapping[str, Mask], caption: str, *, center_crop: bool = True
) -> Image:
    """Lay out one moment of a policy: a column per camera, its image above its overlay, the caption below.

    Args:
        images: camera name -> uint8 [H, W, 3] RGB.
        keep_masks: camera name -> bool [rows, columns], for the same cameras.
        caption: one line, e.g. the instruction and the number of retained tokens; shrunk to fit.
        center_crop: see `overlay`.

    Returns:
        uint8 [552, W', 3] RGB; W' is even and depends only on the images' shapes, as video needs.

    Raises:
        SpecError: there is no camera, a mask is missing, or an image or mask is malformed.
    """
    if not images or set(images) != set(keep_masks):
        raise SpecError(
            "cameras of the mosaic",
            got=f"images of {sorted(images)}, masks of {sorted(keep_masks)}",
            expected="at least one camera, with one image and one mask each",
        )
    columns = [_column(name, image, keep_masks[name], center_crop) for name, image in images.items()]
    body = np.concatenate(columns, axis=1)
    return np.concatenate([body, _caption_strip(caption, body.shape[1])], axis=0)


def _pixel_states(mask: Mask, height: int, width: int, center_crop: bool) -> NDArray[np.uint8]:
    """Tell for each pixel of the camera image whether it was unseen, pruned or retained: uint8 [H, W]."""
    # A frame of unseen patches around the grid catches the pixels outside the crop.
    states = np.pad(np.where(mask, RETAINED, PRUNED), 1, constant_values=UNSEEN).astype(np.uint8)
    rows = _patch_of_pixel(height, mask.shape[0], center_crop)
    columns = _patch_of_pixel(width, mask.shape[1], center_crop)
    return states[rows[:, None], columns[None, :]]


def _patch_of_pixel(num_pixels: int, num_patches: int, center_crop: bool) -> NDArray[np.intp]:
    """Map pixels of one axis to 1..num_patches; 0 and num_patches + 1 are outside the crop."""
    side = CROP_AREA**0.5 if center_crop else 1.0
    centres = (np.arange(num_pixels) + 0.5) / num_pixels
    patches = np.floor((centres - (1.0 - side) / 2) / side * num_patches) + 1
    numbers: NDArray[np.intp] = np.clip(patches, 0, num_patches + 1).astype(np.intp)
    return numbers


def _column(name: str, image: Image, keep_mask: Mask, center_crop: bool) -> Image:
    height, width, _ = _checked_image(image).shape
    tile_width = max(2, 2 * round(width * TILE_HEIGHT_PX / height / 2))
    tile = cast(Image, cv2.resize(image, (tile_width, TILE_HEIGHT_PX), interpolation=cv2.INTER_AREA))
    masked = overlay(tile, keep_mask, center_crop=center_crop)
    _label(tile, name.replace("_", " "))
    return np.concatenate([tile, masked], axis=0)


def _caption_strip(caption: str, width: int) -> Image:
    strip = np.full((CAPTION_HEIGHT_PX, width, 3), 24, dtype=np.uint8)
    margin = 8
    natural_width = max(1, cv2.getTextSize(caption, FONT, 1.0, 1)[0][0])
    scale = min(0.5, (width - 2 * margin) / natural_width)
    _, text_height = cv2.getTextSize(caption, FONT, scale, 1)[0]
    position = (margin, (CAPTION_HEIGHT_PX + text_height) // 2)
    cv2.putText(strip, caption, position, FONT, scale, WHITE, 1, cv2.LINE_AA)
    return strip


def _label(image: Image, text: str) -> None:
    """Write text into the upper left corner, readable on any background."""
    scale = max(0.3, image.shape[0] / 512)
    (width, height), below = cv2.getTextSize(text, FONT, scale, 1)
    margin = round(8 * scale)
    cv2.rectangle(image, (0, 0), (width + 2 * margin, height + below + 2 * margin), BLACK, cv2.FILLED)
    cv2.putText(image, text, (margin, margin + height), FONT, scale, WHITE, 1, cv2.LINE_AA)


def _checked_image(image: Image) -> Image:
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise SpecError("image to draw on", got=f"{image.dtype} {image.shape}", expected="uint8 [H, W, 3]")
    return np.ascontiguousarray(image)


def _checked_mask(keep_mask: Mask) -> Mask:
    if keep_mask.dtype != np.bool_ or keep_mask.ndim != 2 or keep_mask.size == 0:
        raise SpecError(
            "keep mask", got=f"{keep_mask.dtype} {keep_mask.shape}", expected="bool [rows, columns]"
        )
    return keep_mask
