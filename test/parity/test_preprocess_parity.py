"""Preprocessing equals the reference's TensorFlow pipeline (spec §1) on stored images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from lightvla_ros.core.preprocess import ImagePreprocessor, center_crop, pixel_values, resize_224

CASES = ("square256", "vga", "chelsea")
# The bound: at least 99.9 % of the bytes are equal.
MAX_SHARE_DIFFERENT = 0.001


@pytest.fixture(scope="module")
def golden(golden_dir: Path) -> dict[str, np.ndarray]:
    return load_file(golden_dir / "preprocess" / "cases.safetensors")


def assert_bytes_equal(result: np.ndarray, expected: np.ndarray) -> None:
    assert result.dtype == np.uint8
    assert result.shape == expected.shape
    difference = np.abs(result.astype(np.int16) - expected)
    assert difference.max() <= 1
    assert np.count_nonzero(difference) / difference.size <= MAX_SHARE_DIFFERENT


@pytest.mark.parametrize("case", CASES)
def test_resize_equals_the_reference(golden: dict[str, np.ndarray], case: str) -> None:
    assert_bytes_equal(resize_224(golden[f"{case}/camera_rgb"]), golden[f"{case}/resized_224"])


@pytest.mark.parametrize("case", CASES)
def test_center_crop_equals_the_reference(golden: dict[str, np.ndarray], case: str) -> None:
    assert_bytes_equal(center_crop(golden[f"{case}/resized_224"]), golden[f"{case}/center_cropped_224"])


@pytest.mark.parametrize("case", CASES)
def test_resize_then_crop_equals_the_reference(golden: dict[str, np.ndarray], case: str) -> None:
    result = center_crop(resize_224(golden[f"{case}/camera_rgb"]))
    assert_bytes_equal(result, golden[f"{case}/center_cropped_224"])


@pytest.mark.parametrize("case", CASES)
def test_pixel_values_equal_the_reference_to_float16(golden: dict[str, np.ndarray], case: str) -> None:
    result = pixel_values(golden[f"{case}/center_cropped_224"])
    np.testing.assert_array_equal(result.astype(np.float16), golden[f"{case}/pixel_values"])


def test_the_preprocessor_equals_the_reference_for_two_cameras(golden: dict[str, np.ndarray]) -> None:
    result = ImagePreprocessor()([golden["vga/camera_rgb"], golden["square256/camera_rgb"]])
    expected = np.concatenate([golden["vga/pixel_values"], golden["square256/pixel_values"]])[None]
    # One byte step is 1 / 255 / 0.2236 in normalised units, the largest of the channels.
    difference = np.abs(result - expected.astype(np.float32))
    assert difference.max() <= 1 / 255 / 0.2236 + 1e-3
    assert np.count_nonzero(difference > 2e-3) / difference.size <= MAX_SHARE_DIFFERENT
