"""Images and masks for overlays and mosaics."""

from __future__ import annotations

import numpy as np

from lightvla_ros.core.grid_region import GridRegion

GREY = np.full((320, 320, 3), 200, dtype=np.uint8)
WHOLE = GridRegion()


def keep(*patches: tuple[int, int], shape: tuple[int, int] = (4, 4)) -> np.ndarray:
    """A keep mask with these patches, (row, column), retained."""
    mask = np.zeros(shape, dtype=np.bool_)
    for patch in patches:
        mask[patch] = True
    return mask
