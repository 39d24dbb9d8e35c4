"""Banded filters against the dense definition."""

from __future__ import annotations

import numpy as np
import pytest

from lightvla_ros.core.resample import (
    CACHED_FILTERS,
    BandedFilter,
    Scratch,
    center_crop_filter,
    lanczos_filter,
)


def dense(num_inputs: int, num_outputs: int) -> np.ndarray:
    """Lanczos-3 weights straight from the formula, one by one."""
    scale = num_inputs / num_outputs
    weights = np.zeros((num_outputs, num_inputs))
    for i in range(num_outputs):
        for j in range(num_inputs):
            x = (j + 0.5 - (i + 0.5) * scale) / max(scale, 1.0)
            weights[i, j] = np.sinc(x) * np.sinc(x / 3) if abs(x) < 3 else 0.0
        weights[i] /= weights[i].sum()
    return weights


def apply_rows(banded: BandedFilter, values: np.ndarray, num_outputs: int) -> np.ndarray:
    return banded.along_rows(values, out=np.empty((num_outputs, values.shape[1]), np.float32))


@pytest.mark.parametrize(
    ("num_inputs", "num_outputs"), [(48, 22), (25, 22), (22, 22), (10, 31), (7, 1), (1, 5)]
)
def test_both_axes_equal_the_dense_product(num_inputs: int, num_outputs: int) -> None:
    values = np.random.default_rng(0).uniform(0, 255, (num_inputs, 5)).astype(np.float32)
    expected = dense(num_inputs, num_outputs) @ values
    rows = apply_rows(lanczos_filter(num_inputs, num_outputs), values, num_outputs)
    columns = np.empty((5, num_outputs), np.float32)
    lanczos_filter(num_inputs, num_outputs).along_columns(np.ascontiguousarray(values.T), out=columns)
    np.testing.assert_allclose(rows, expected, atol=1e-3)
    np.testing.assert_allclose(columns, expected.T, atol=1e-3)


def test_the_crop_samples_where_the_reference_does() -> None:
    positions = apply_rows(center_crop_filter(224), np.arange(224, dtype=np.float32)[:, None], 224)[:, 0]
    assert positions[0] == pytest.approx(5.721816, abs=1e-4)
    assert positions[-1] == pytest.approx(217.27818, abs=1e-4)
    np.testing.assert_allclose(np.diff(positions), 0.94868326, atol=1e-4)


@pytest.mark.parametrize("size", [1, 2, 3, 112])
def test_crop_weights_stay_inside_the_image(size: int) -> None:
    ones = apply_rows(center_crop_filter(size), np.ones((size, 1), np.float32), size)
    np.testing.assert_allclose(ones, 1.0, atol=1e-6)


def test_filters_are_cached_within_a_bound() -> None:
    assert lanczos_filter(40, 20) is lanczos_filter(40, 20)
    for size in range(20, 20 + 2 * CACHED_FILTERS):
        lanczos_filter(size, 10)
    assert lanczos_filter.cache_info().currsize <= CACHED_FILTERS


def test_scratch_arrays_are_reused_and_grow() -> None:
    scratch = Scratch()
    small = scratch.array("a", 2, 3)
    assert small.shape == (2, 3)
    assert np.shares_memory(small, scratch.array("a", 6))
    assert not np.shares_memory(small, scratch.array("b", 2, 3))
    assert scratch.array("a", 10, 10).shape == (10, 10)


def test_bytes_are_filtered_as_the_same_numbers_in_float32() -> None:
    values = np.random.default_rng(0).integers(0, 256, (48, 30)).astype(np.uint8)
    of_bytes = apply_rows(lanczos_filter(48, 22), values, 22)
    np.testing.assert_array_equal(of_bytes, apply_rows(lanczos_filter(48, 22), values.astype(np.float32), 22))


@pytest.mark.parametrize("shape", [(1,), (3, 5, 3), (8, 8)])
def test_scratch_bytes_have_their_shape_and_are_reused(shape: tuple[int, ...]) -> None:
    scratch = Scratch()
    array = scratch.byte_array("a", *shape)
    assert (array.shape, array.dtype, array.flags.c_contiguous) == (shape, np.uint8, True)
    assert np.shares_memory(array, scratch.byte_array("a", *shape))
