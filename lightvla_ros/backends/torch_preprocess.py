"""Camera images to pixel values on the GPU, where the resize takes microseconds instead of milliseconds.

The same filters as `core/preprocess.py`, after the same JPEG round trip on the CPU. Sums are in float32 in
another order, so that a byte in some millions may come out rounded to its neighbour.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from lightvla_ros.backends.torch_device import torch_device
from lightvla_ros.backends.torch_engine import running
from lightvla_ros.core.policy import Preprocessor
from lightvla_ros.core.policy_config import PolicyConfig, make_preprocessor
from lightvla_ros.core.preprocess import Image, ImagePreprocessor
from lightvla_ros.core.resample import (
    CACHED_FILTERS,
    TO_BYTES,
    center_crop_weights,
    lanczos_weights,
    padded_sides,
)


class TorchPreprocessor:
    """What `ImagePreprocessor` does, ending on a device.

    Args:
        preprocessor: says what is done, and does what comes before the resize.
        device: where the result is wanted.
    """

    def __init__(self, preprocessor: ImagePreprocessor, device: torch.device) -> None:
        self._preprocessor = preprocessor
        self._device = device
        self._tables = torch.stack([torch.from_numpy(table) for table in preprocessor.tables]).to(device)
        # Which table a byte is looked up in: [towers, 3, 1, 1] against the cameras' [cameras, 1, 3, S, S].
        self._tower = torch.arange(len(self._tables), device=device)[:, None, None, None]
        self._channel = torch.arange(3, device=device)[:, None, None]
        self._weights = lru_cache(maxsize=CACHED_FILTERS)(self._make_weights)

    def __call__(self, images: Sequence[Image]) -> Tensor:
        """Prepare one image per camera.

        Args:
            images: uint8 [H, W, 3] RGB each, any size, in the model's camera order.

        Returns:
            float32 [1, cameras * towers * 3, S, S] on the device; per camera all towers in order.

        Raises:
            ObservationError: an image has another dtype or shape.
            EngineError: the device failed.
        """
        with running("preprocess"):
            planes = [self._planes(image) for image in self._preprocessor.compressed(images)]
            indices = torch.stack(planes).long()[:, None]
            return self._tables[self._tower, self._channel, indices].flatten(0, 2)[None]

    def _planes(self, image: Image) -> Tensor:
        """Resize and crop uint8 [H, W, 3] to bytes in [3, S, S]."""
        size, fit = self._preprocessor.image_size, self._preprocessor.fit
        planes = torch.from_numpy(image).to(self._device).permute(2, 0, 1).float()
        if planes.shape[1:] != (size, size):
            height, width = padded_sides(image.shape, size) if fit == "pad" else (size, size)
            planes = self._filtered(planes, lanczos_weights, height, width).round().clamp(0, 255)
            if (height, width) != (size, size):
                top, left = (size - height) // 2, (size - width) // 2
                planes = F.pad(planes, (left, size - width - left, top, size - height - top))
        if self._preprocessor.center_crop:
            planes = self._filtered(planes, _crop_weights, size, size) * float(TO_BYTES)
        return planes.to(torch.uint8)

    def _filtered(self, planes: Tensor, weights: _Weights, height: int, width: int) -> Tensor:
        """Filter [3, H, W] along both axes to [3, height, width]."""
        rows = self._weights(weights, planes.shape[1], height) @ planes
        return rows @ self._weights(weights, planes.shape[2], width).T

    def _make_weights(self, weights: _Weights, num_inputs: int, num_outputs: int) -> Tensor:
        return torch.from_numpy(weights(num_inputs, num_outputs)).to(self._device, torch.float32)


_Weights = Callable[[int, int], NDArray[np.float64]]


def _crop_weights(size: int, _same_size: int) -> NDArray[np.float64]:
    return center_crop_weights(size)


def preprocessor_for(device: str) -> Callable[[PolicyConfig], Preprocessor]:
    """Return what builds the image side of a policy whose torch engine runs on `device`.

    Raises:
        EngineError: see `torch_device`.
    """
    return _on_gpu if torch_device(device) == "cuda" else make_preprocessor


def _on_gpu(config: PolicyConfig) -> TorchPreprocessor:
    return TorchPreprocessor(make_preprocessor(config), torch.device("cuda"))
