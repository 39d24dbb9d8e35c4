"""A second task for the unpruned stage: point at the visual tokens that show the named object.

The published models' towers come with years of pictures and words. The mini model has only
demonstrations, in which a wrong look costs little, and from them alone it learns to ignore its cameras.
Pointing gives every visual token a label of its own: how much of it has the colour the instruction names.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

# OpenCV's hues (0..179) of the tabletop's objects; nothing else there is as saturated.
_HUES = {"red": (170, 8), "yellow": (18, 36), "green": (45, 80), "blue": (100, 130)}
_MIN_SATURATION = 185
_MIN_VALUE = 45
# A token counts in full when this share of it shows the colour.
_FULL_SHARE = 0.25
# Tokens that show the object are few.
_POSITIVE_WEIGHT = 8.0


def named_colour(instruction: str) -> str:
    """Return the first colour word of an instruction, "" when it has none."""
    return next((word for word in instruction.lower().split() if word in _HUES), "")


def colour_shares(image: NDArray[np.uint8], colour: str, side: int) -> NDArray[np.float32]:
    """Say how much of each patch shows a colour.

    Args:
        image: uint8 [S, S, 3] RGB.
        colour: one of the object colours, or "" for none.
        side: patches per side.

    Returns:
        float32 [side * side] in 0..1, row-major.
    """
    if not colour:
        return np.zeros(side * side, dtype=np.float32)
    hue, saturation, value = cv2.split(cv2.cvtColor(image, cv2.COLOR_RGB2HSV))
    low, high = _HUES[colour]
    has_hue = (hue >= low) & (hue <= high) if low <= high else (hue >= low) | (hue <= high)
    shown = has_hue & (saturation >= _MIN_SATURATION) & (value >= _MIN_VALUE)
    share = cv2.resize(shown.astype(np.float32), (side, side), interpolation=cv2.INTER_AREA)
    return np.minimum(share / _FULL_SHARE, 1.0).ravel()


class PointingHead(nn.Module):
    """One logit per visual token; thrown away after training."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, 1)

    def loss(self, visual_hidden: Tensor, shares: Tensor) -> Tensor:
        """Compare [B, N, D] decoder rows of the visual tokens with shares float32 [B, N]."""
        logits = self.linear(visual_hidden).squeeze(-1).float()
        weight = torch.tensor(_POSITIVE_WEIGHT)
        return F.binary_cross_entropy_with_logits(logits, shares, pos_weight=weight)
