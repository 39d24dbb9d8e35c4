"""Separable resampling as banded matrix products: the reference's image filters (spec §1.2)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

LANCZOS_RADIUS = 3
CROP_AREA = 0.9
# A camera has one size, so a handful of filters covers a robot; the bound is for callers that see many.
CACHED_FILTERS = 32
# Measured on 640x480 to 224x224: larger blocks multiply more zeros, smaller ones call BLAS too often.
ROWS_PER_BLOCK = 8
COLUMNS_PER_BLOCK = 16
# The reference crops in [0, 1] and goes back to bytes by truncating x * 255.5.
TO_BYTES = np.float32(255.5 / 255.0)


class Scratch:
    """Named float32 work arrays, reused from call to call; one thread at a time.

    Fresh arrays of this size come as untouched pages, and taking those costs more than the arithmetic.
    """

    def __init__(self) -> None:
        self._buffers: dict[str, NDArray[np.float32]] = {}

    def array(self, name: str, *shape: int) -> NDArray[np.float32]:
        """Return the array `name` in the given shape; what it held before is lost."""
        size = math.prod(shape)
        buffer = self._buffers.get(name)
        if buffer is None or buffer.size < size:
            buffer = self._buffers[name] = np.empty(size, dtype=np.float32)
        return buffer[:size].reshape(shape)

    def byte_array(self, name: str, *shape: int) -> NDArray[np.uint8]:
        """Return the array `name` as uint8 in the given shape; what it held before is lost."""
        size = math.prod(shape)
        return self.array(name, math.ceil(size / 4)).view(np.uint8)[:size].reshape(shape)


@dataclass(frozen=True, slots=True, eq=False)
class _Block:
    """Non-zero part of some adjacent rows of a weight matrix."""

    outputs: slice
    inputs: slice
    weights: NDArray[np.float32]


class BandedFilter:
    """Apply a matrix whose rows are non-zero over few adjacent columns; immutable, so threads may share it.

    Args:
        weights: float [m, n], output i = sum_j weights[i, j] * input j.
    """

    def __init__(self, weights: NDArray[np.float64]) -> None:
        self.num_outputs, self.num_inputs = weights.shape
        self._row_blocks = _blocks(weights, ROWS_PER_BLOCK)
        self._column_blocks = _blocks(weights, COLUMNS_PER_BLOCK)

    def along_rows(
        self, values: NDArray[np.float32] | NDArray[np.uint8], out: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Filter the last axis but one: [..., n, K] into `out`, float32 [..., m, K], which is returned."""
        # Of uint8 values NumPy makes float32 a block at a time, which stays in the cache.
        for block in self._row_blocks:
            np.matmul(block.weights, values[..., block.inputs, :], out=out[..., block.outputs, :])
        return out

    def along_columns(self, values: NDArray[np.float32], out: NDArray[np.float32]) -> NDArray[np.float32]:
        """Filter the last axis: float32 [..., n] into `out` [..., m], which is returned; both contiguous."""
        # One tall matrix: a product per leading index would call BLAS for each.
        source, target = values.reshape(-1, self.num_inputs), out.reshape(-1, self.num_outputs)
        for block in self._column_blocks:
            np.matmul(source[:, block.inputs], block.weights.T, out=target[:, block.outputs])
        return out


@lru_cache(maxsize=CACHED_FILTERS)
def lanczos_filter(num_inputs: int, num_outputs: int) -> BandedFilter:
    """Filter by `lanczos_weights`."""
    return BandedFilter(lanczos_weights(num_inputs, num_outputs))


@lru_cache(maxsize=CACHED_FILTERS)
def center_crop_filter(size: int) -> BandedFilter:
    """Filter by `center_crop_weights`."""
    return BandedFilter(center_crop_weights(size))


def lanczos_weights(num_inputs: int, num_outputs: int) -> NDArray[np.float64]:
    """Lanczos-3 resize of one axis, [m, n], widened by the reduction so that it does not alias.

    With s = n / m and L(x) = sinc(x) sinc(x / 3) for |x| < 3, the weight of input j for output i is
    L((j + 0.5 - (i + 0.5) s) / max(s, 1)), each row normalised to sum 1.
    """
    scale = num_inputs / num_outputs
    centres = (np.arange(num_outputs) + 0.5) * scale
    offsets = (np.arange(num_inputs) + 0.5 - centres[:, None]) / max(scale, 1.0)
    weights = np.sinc(offsets) * np.sinc(offsets / LANCZOS_RADIUS)
    weights[np.abs(offsets) >= LANCZOS_RADIUS] = 0.0
    normalized: NDArray[np.float64] = weights / weights.sum(axis=1, keepdims=True)
    return normalized


def center_crop_weights(size: int) -> NDArray[np.float64]:
    """Crop the centre sqrt(0.9) of one axis and stretch it back to `size`, bilinear: [size, size].

    Output j is sampled at (size - 1) o + j s with s = sqrt(0.9), o = (1 - s) / 2, all float32 as the
    reference computes it.
    """
    side = np.sqrt(np.float32(CROP_AREA))
    first = np.float32(size - 1) * ((1 - side) / 2)
    positions = first + np.arange(size, dtype=np.float32) * side
    lower = np.floor(positions).astype(np.intp)
    fraction = positions - lower
    weights = np.zeros((size, size))
    outputs = np.arange(size)
    weights[outputs, lower] = 1.0 - fraction
    # Where the fraction is 0 the upper neighbour may lie outside; it has no weight then.
    weights[outputs, np.minimum(lower + 1, size - 1)] += fraction
    return weights


def central_square(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Cut the largest square out of the middle of [H, W, 3]."""
    height, width, _ = image.shape
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return np.ascontiguousarray(image[top : top + side, left : left + side])


def lanczos_rows(image: NDArray[np.uint8], height: int, scratch: Scratch) -> NDArray[np.float32]:
    """Resize uint8 [H, W, 3] to float32 [height, W, 3], not rounded."""
    input_height, width, channels = image.shape
    rows = scratch.array("rows", height, width * channels)
    lanczos_filter(input_height, height).along_rows(image.reshape(input_height, -1), out=rows)
    return rows.reshape(height, width, channels)


def lanczos_columns(planes: NDArray[np.float32], width: int, scratch: Scratch) -> NDArray[np.float32]:
    """Resize float32 [3, height, W] to whole numbers 0..255 in float32 [3, height, width]."""
    resized = scratch.array("resized", *planes.shape[:2], width)
    lanczos_filter(planes.shape[-1], width).along_columns(planes, out=resized)
    np.rint(resized, out=resized)
    return np.clip(resized, 0.0, 255.0, out=resized)


def padded_sides(shape: tuple[int, ...], size: int) -> tuple[int, int]:
    """Scale the sides of [H, W, 3] alike so that the longer one is `size`; at least 1 pixel each."""
    height, width, _ = shape
    longest = max(height, width)
    return max(1, round(height * size / longest)), max(1, round(width * size / longest))


def padded_planes(planes: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """Put float32 [3, height, width] in the middle of a black [3, size, size], if it is smaller."""
    _, height, width = planes.shape
    if height == width == size:
        return planes
    top, left = (size - height) // 2, (size - width) // 2
    padded = np.zeros((len(planes), size, size), dtype=np.float32)
    padded[:, top : top + height, left : left + width] = planes
    return padded


def center_cropped_planes(planes: NDArray[np.float32], scratch: Scratch) -> NDArray[np.uint8]:
    """Centre-crop float32 [3, S, S] in 0..255 to uint8 [3, S, S]."""
    crop = center_crop_filter(planes.shape[-1])
    rows = crop.along_rows(planes, out=scratch.array("cropped rows", *planes.shape))
    cropped = crop.along_columns(rows, out=scratch.array("cropped", *planes.shape))
    cropped *= TO_BYTES
    return cropped.astype(np.uint8)


def _blocks(weights: NDArray[np.float64], outputs_per_block: int) -> tuple[_Block, ...]:
    blocks = []
    for start in range(0, len(weights), outputs_per_block):
        part = weights[start : start + outputs_per_block]
        used = np.flatnonzero(part.any(axis=0))
        inputs = slice(int(used[0]), int(used[-1]) + 1)
        outputs = slice(start, start + len(part))
        blocks.append(_Block(outputs, inputs, np.ascontiguousarray(part[:, inputs], dtype=np.float32)))
    return tuple(blocks)
