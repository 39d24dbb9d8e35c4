"""Pictures of whole inferences: one as a mosaic, several moments as a strip."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import cv2
import numpy as np

from lightvla_ros.core.errors import SpecError
from lightvla_ros.core.grid_region import GridRegion
from lightvla_ros.core.inference_record import InferenceRecord
from lightvla_ros.view.overlay import FONT, USUAL_REGION, WHITE, Image, Mask, checked_image, label, overlay

TILE_HEIGHT_PX = 256
CAPTION_HEIGHT_PX = 40
BACKGROUND = 24
GAP_PX = 4


def mosaic(
    images: Mapping[str, Image],
    keep_masks: Mapping[str, Mask],
    caption: str,
    regions: Mapping[str, GridRegion] | None = None,
) -> Image:
    """Lay out one moment of a policy: a column per camera, its image above its overlay, the caption below.

    Args:
        images: camera name -> uint8 [H, W, 3] RGB.
        keep_masks: camera name -> bool [rows, columns], for the same cameras.
        caption: one line, e.g. the instruction and the number of retained tokens; shrunk to fit.
        regions: camera name -> what its grid covers, see `overlay`; None where it is the usual for all.

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
    regions = dict.fromkeys(images, USUAL_REGION) if regions is None else regions
    columns = [_column(name, image, keep_masks[name], regions[name]) for name, image in images.items()]
    body = np.concatenate(columns, axis=1)
    return np.concatenate([body, _caption_strip(caption, body.shape[1])], axis=0)


def draw_record(record: InferenceRecord, images: Mapping[str, Image]) -> Image:
    """Lay out one inference as a mosaic, captioned with its instruction and how many tokens it retained.

    Args:
        record: what was inferred.
        images: camera name -> the image it was inferred from, as its topic has it; uint8 [H, W, 3] RGB.

    Raises:
        SpecError: see `mosaic`.
    """
    return mosaic(
        images,
        {name: camera.keep_mask for name, camera in record.cameras.items()},
        f"{record.instruction}: {record.num_retained} of {record.num_visual_tokens} visual tokens",
        {name: camera.region for name, camera in record.cameras.items()},
    )


def draw_strip(moments: Sequence[tuple[InferenceRecord, Mapping[str, Image]]]) -> Image:
    """Lay out moments of one instruction from left to right, as LightVLA's figure 3 does.

    From above: every camera's image, then every camera's overlay; times count from the first moment.

    Args:
        moments: inferences of the same cameras, each with its images as in `draw_record`; at least one.

    Returns:
        uint8 [H, W, 3] RGB.

    Raises:
        SpecError: an image or mask is missing or malformed.
    """
    first = moments[0][0]
    columns = []
    for record, images in moments:
        time_s = (record.stamp_ns - first.stamp_ns) / 1e9
        column = _moment(
            record, images, f"{time_s:.1f} s: {record.num_retained} of {record.num_visual_tokens}"
        )
        columns += [column, np.full((column.shape[0], GAP_PX, 3), BACKGROUND, dtype=np.uint8)]
    body = np.concatenate(columns[:-1], axis=1)
    return np.concatenate([body, _caption_strip(first.instruction, body.shape[1])], axis=0)


def _moment(record: InferenceRecord, images: Mapping[str, Image], caption: str) -> Image:
    if set(images) != set(record.cameras):
        raise SpecError("images of a moment", got=sorted(images), expected=f"{sorted(record.cameras)}")
    tiles = {name: _tile(images[name]) for name in record.cameras}
    rows = [*tiles.values()]
    rows += [overlay(tiles[name], camera.keep_mask, camera.region) for name, camera in record.cameras.items()]
    width = max(row.shape[1] for row in rows)
    padded = [np.pad(row, ((0, GAP_PX), (0, width - row.shape[1]), (0, 0))) for row in rows]
    return np.concatenate([_caption_strip(caption, width), *padded], axis=0)


def _tile(image: Image) -> Image:
    height, width, _ = checked_image(image).shape
    tile_width = max(2, 2 * round(width * TILE_HEIGHT_PX / height / 2))
    return cast(Image, cv2.resize(image, (tile_width, TILE_HEIGHT_PX), interpolation=cv2.INTER_AREA))


def _column(name: str, image: Image, keep_mask: Mask, region: GridRegion) -> Image:
    tile = _tile(image)
    masked = overlay(tile, keep_mask, region)
    label(tile, name.replace("_", " "))
    return np.concatenate([tile, masked], axis=0)


def _caption_strip(caption: str, width: int) -> Image:
    strip = np.full((CAPTION_HEIGHT_PX, width, 3), BACKGROUND, dtype=np.uint8)
    margin = 8
    natural_width = max(1, cv2.getTextSize(caption, FONT, 1.0, 1)[0][0])
    scale = min(0.5, (width - 2 * margin) / natural_width)
    _, text_height = cv2.getTextSize(caption, FONT, scale, 1)[0]
    position = (margin, (CAPTION_HEIGHT_PX + text_height) // 2)
    cv2.putText(strip, caption, position, FONT, scale, WHITE, 1, cv2.LINE_AA)
    return strip
