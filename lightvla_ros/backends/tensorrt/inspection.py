"""Reads and writes what otherwise never leaves the device, to compare it with a reference."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightvla_ros.backends.tensorrt.cuda import Device
from lightvla_ros.backends.tensorrt.pipeline import Pipeline
from lightvla_ros.core.errors import SpecError

# NumPy has no bfloat16: the upper half of a float32, here as an integer.
_STORED_AS = {"float32": np.float32, "float16": np.float16, "bfloat16": np.uint16}


class Inspector:
    """Copies float tensors [1, rows, D] of a pipeline; page-locked memory is taken at the first use of each.

    Args:
        device: of the pipeline.
        pipeline: whose tensors.
        width: D.
    """

    def __init__(self, device: Device, pipeline: Pipeline, width: int) -> None:
        self._device, self._pipeline, self._width = device, pipeline, width
        self._staging: dict[str, NDArray[Any]] = {}

    def read(self, name: str, num_rows: int) -> NDArray[np.float32]:
        """Return the first rows of a tensor as float32 [num_rows, D]."""
        staging = self._stage(name)
        self._device.download(staging, self._pipeline.addresses[name])
        self._device.synchronize()
        return to_float32(staging[:num_rows])

    def write(self, name: str, values: NDArray[np.float32]) -> None:
        """Overwrite all rows of a tensor, rounded to its precision.

        Raises:
            SpecError: the shape is another.
        """
        staging = self._stage(name)
        if values.shape != staging.shape:
            raise SpecError(
                name,
                got=f"shape {values.shape}",
                expected=f"{staging.shape}",
                fix="compare with the model this engine was exported from",
            )
        staging[...] = round_to(values, staging.dtype)
        self._device.upload(self._pipeline.addresses[name], staging)

    def _stage(self, name: str) -> NDArray[Any]:
        if name not in self._staging:
            dtype = np.dtype(_STORED_AS[self._pipeline.dtypes[name]])
            num_rows = self._pipeline.sizes[name] // (dtype.itemsize * self._width)
            self._staging[name] = self._device.allocate_host((num_rows, self._width), dtype)
        return self._staging[name]


def to_float32(stored: NDArray[Any]) -> NDArray[np.float32]:
    """Return float32, float16 or bfloat16 (as uint16) values as new float32 ones."""
    if stored.dtype == np.uint16:
        return (stored.astype(np.uint32) << 16).view(np.float32)
    return stored.astype(np.float32)


def round_to(values: NDArray[np.float32], stored: np.dtype[Any]) -> NDArray[Any]:
    """Round float32 values to what is stored, to the nearest and ties to even."""
    if stored != np.uint16:
        return values.astype(stored)
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return np.where(np.isnan(values), 0x7FC0, rounded).astype(np.uint16)
