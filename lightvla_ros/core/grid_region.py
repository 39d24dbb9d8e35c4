"""Where a policy's patch grid lies on a camera image."""

from __future__ import annotations

from typing import NamedTuple

from lightvla_ros.core.preprocess import Fit
from lightvla_ros.core.resample import CROP_AREA


class GridRegion(NamedTuple):
    """The rectangle that the patch grid covers, in fractions of the image's width and height.

    It reaches beyond 0 and 1 where the image was padded before the policy saw it.
    """

    left: float = 0.0
    top: float = 0.0
    right: float = 1.0
    bottom: float = 1.0


def grid_region(height: int, width: int, *, fit: Fit = "stretch", center_crop: bool = True) -> GridRegion:
    """Undo what preprocessing does to an image (spec §1.2): the rectangle that becomes the model's input.

    Args:
        height: of the camera image, pixels.
        width: likewise.
        fit: how an image that is not square was made square, see `core.preprocess.ImagePreprocessor`.
        center_crop: whether the policy sees only the central 0.9 of the area.
    """
    side = {"stretch": 0, "pad": max(height, width), "crop": min(height, width)}[fit]
    seen = CROP_AREA**0.5 if center_crop else 1.0
    half_width = 0.5 * seen * (side / width if side else 1.0)
    half_height = 0.5 * seen * (side / height if side else 1.0)
    return GridRegion(0.5 - half_width, 0.5 - half_height, 0.5 + half_width, 0.5 + half_height)
