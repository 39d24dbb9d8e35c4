"""What the pruner retained of an image: patch masks and overlays."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from lightvla_ros.core.errors import SpecError
from lightvla_ros.core.grid_region import GridRegion, grid_region

Image = NDArray[np.uint8]
Mask = NDArray[np.bool_]

# Share of grey and of colour left in a pixel; what the model never saw is darker than what it dropped.
PRUNED_GREY, PRUNED_COLOUR = 0.25, 0.12
UNSEEN_GREY = 0.12
GRID_GREY = 0.45
# Narrower patches would be all grid.
NARROWEST_WITH_GRID_PX = 6
# What a square image of the published checkpoints shows.
USUAL_REGION = grid_region(1, 1)
UNSEEN, PRUNED, RETAINED = range(3)

FONT = cv2.FONT_HERSHEY_SIMPLEX
WHITE, BLACK = (255, 255, 255), (0, 0, 0)


def mask_image(keep_mask: Mask) -> Image:
    """Turn bool [rows, columns] into uint8 [rows, columns]: 255 where the token was retained, else 0.

    Raises:
        SpecError: the mask is not a 2-D array of bool.
    """
    return _checked_mask(keep_mask).astype(np.uint8) * np.uint8(255)


def overlay(image_rgb: Image, keep_mask: Mask, region: GridRegion = USUAL_REGION) -> Image:
    """Dim what the policy did not use in a camera image.

    Args:
        image_rgb: uint8 [H, W, 3] RGB, as the camera gave it.
        keep_mask: bool [rows, columns], the patch grid as it lies on this image.
        region: what the grid covers of the image; the rest, which the policy did not see, is dimmed most.

    Returns:
        uint8 [H, W, 3], a new image: retained patches unchanged, the others dark and pale with the patch
        grid on them, and the count of retained patches in the upper left corner.

    Raises:
        SpecError: the image or the mask has another dtype or shape, or the image has fewer pixels than
            the grid has patches.
    """
    image, mask = checked_image(image_rgb), _checked_mask(keep_mask)
    height, width, _ = image.shape
    if height < mask.shape[0] or width < mask.shape[1]:
        raise SpecError(
            "image and mask that belong together",
            got=f"an image of {width}x{height} pixels, a grid of {mask.shape[1]}x{mask.shape[0]} patches",
            expected="at least a pixel for each patch",
            fix="compare the camera's topic with policy/retained_tokens: are both of the same camera?",
        )
    rows = _patch_of_pixel(height, mask.shape[0], region.top, region.bottom)
    columns = _patch_of_pixel(width, mask.shape[1], region.left, region.right)
    states = _pixel_states(mask, rows, columns)
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    pruned = cv2.addWeighted(grey, PRUNED_GREY, image, PRUNED_COLOUR, 0.0)
    unseen = cv2.convertScaleAbs(grey, alpha=UNSEEN_GREY)
    result = image.copy()
    cv2.copyTo(pruned, (states == PRUNED).astype(np.uint8), result)
    cv2.copyTo(unseen, (states == UNSEEN).astype(np.uint8), result)
    _draw_grid(result, states, rows, columns)
    label(result, f"{np.count_nonzero(mask)}/{mask.size}")
    return result


def _pixel_states(mask: Mask, rows: NDArray[np.intp], columns: NDArray[np.intp]) -> NDArray[np.uint8]:
    """Tell for each pixel of the camera image whether it was unseen, pruned or retained: uint8 [H, W]."""
    # A frame of unseen patches around the grid catches the pixels outside the region.
    states = np.pad(np.where(mask, RETAINED, PRUNED), 1, constant_values=UNSEEN).astype(np.uint8)
    return states[rows[:, None], columns[None, :]]


def _patch_of_pixel(num_pixels: int, num_patches: int, begin: float, end: float) -> NDArray[np.intp]:
    """Map pixels of one axis to 1..num_patches; 0 and num_patches + 1 are outside the region."""
    centres = (np.arange(num_pixels) + 0.5) / num_pixels
    patches = np.floor((centres - begin) / (end - begin) * num_patches) + 1
    numbers: NDArray[np.intp] = np.clip(patches, 0, num_patches + 1).astype(np.intp)
    return numbers


def _draw_grid(
    image: Image, states: NDArray[np.uint8], rows: NDArray[np.intp], columns: NDArray[np.intp]
) -> None:
    """Lighten the first pixels of pruned patches, which leaves retained ones as the camera saw them."""
    is_first = np.zeros(states.shape, dtype=np.bool_)
    for axis, patches in enumerate((rows, columns)):
        begins = np.flatnonzero(np.diff(patches)) + 1
        if len(begins) > 1 and np.diff(begins).min() >= NARROWEST_WITH_GRID_PX:
            is_first[(slice(None),) * axis + (begins,)] = True
    is_first &= states == PRUNED
    image[is_first] = (image[is_first] * (1 - GRID_GREY / 2) + 255 * GRID_GREY / 4).astype(np.uint8)


def label(image: Image, text: str) -> None:
    """Write text into the upper left corner of uint8 [H, W, 3], readable on any background."""
    scale = max(0.3, image.shape[0] / 512)
    (width, height), below = cv2.getTextSize(text, FONT, scale, 1)
    margin = round(8 * scale)
    cv2.rectangle(image, (0, 0), (width + 2 * margin, height + below + 2 * margin), BLACK, cv2.FILLED)
    cv2.putText(image, text, (margin, margin + height), FONT, scale, WHITE, 1, cv2.LINE_AA)


def checked_image(image: Image) -> Image:
    """Return the image, contiguous.

    Raises:
        SpecError: it is not uint8 [H, W, 3].
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise SpecError("image to draw on", got=f"{image.dtype} {image.shape}", expected="uint8 [H, W, 3]")
    return np.ascontiguousarray(image)


def _checked_mask(keep_mask: Mask) -> Mask:
    if keep_mask.dtype != np.bool_ or keep_mask.ndim != 2 or keep_mask.size == 0:
        raise SpecError(
            "keep mask", got=f"{keep_mask.dtype} {keep_mask.shape}", expected="bool [rows, columns]"
        )
    return keep_mask
