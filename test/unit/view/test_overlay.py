"""Mask images and overlays."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from overlay_cases import GREY, WHOLE, keep

from lightvla_ros.core.errors import SpecError
from lightvla_ros.core.grid_region import grid_region
from lightvla_ros.core.preprocess import Fit, center_crop, resize
from lightvla_ros.view.overlay import mask_image, overlay


def test_the_mask_image_is_white_where_retained() -> None:
    image = mask_image(keep((1, 2)))
    assert image.dtype == np.uint8
    assert image[1, 2] == 255
    assert image.sum() == 255


def test_retained_patches_are_unchanged_and_the_others_darker() -> None:
    image = np.full((320, 320, 3), (200, 100, 50), dtype=np.uint8)
    result = overlay(image, keep((2, 2)), WHOLE)
    np.testing.assert_array_equal(result[160:240, 160:240], image[160:240, 160:240])
    assert result[250:, 250:].max() < 100
    red, green, _ = result[300, 300].astype(int)
    assert red - green < 40, "pruned patches should be pale"


def test_outside_the_crop_is_darker_than_pruned() -> None:
    result = overlay(GREY, keep((2, 2)))
    # 0.9 of the area leaves 8.2 of 320 pixels on each side unseen.
    assert result[319 - 7, 200, 0] < result[319 - 9, 200, 0] < 200


@pytest.mark.parametrize("fit", ["stretch", "pad", "crop"])
@pytest.mark.parametrize("crops", [True, False])
@settings(deadline=None)
@given(row=st.integers(5, 10), column=st.integers(5, 10), height=st.sampled_from([300, 500]))
def test_a_patch_is_drawn_where_the_policy_saw_it(
    fit: Fit, crops: bool, row: int, column: int, height: int
) -> None:
    """What the overlay leaves bright must land in that very patch of the policy's own input."""
    image = np.full((height, 400, 3), 30, dtype=np.uint8)
    region = grid_region(height, 400, fit=fit, center_crop=crops)
    retained = (overlay(image, keep((row, column), shape=(16, 16)), region) == 30).all(axis=2)
    retained[:40, :120] = False  # the count in the corner
    probe = np.where(retained[..., None], np.uint8(255), np.uint8(0)).repeat(3, axis=2)
    model_input = resize(probe, 224, jpeg=False, fit=fit)
    seen = (center_crop(model_input) if crops else model_input)[..., 0] > 127
    patches = seen.reshape(16, 14, 16, 14).mean(axis=(1, 3))
    assert patches[row, column] > 0.85
    patches[row, column] = 0.0
    assert patches.max() < 0.15


def test_the_patch_grid_is_drawn_on_pruned_patches_only() -> None:
    shown = overlay(GREY, keep((2, 2)), WHOLE)
    dark, line = shown[290, 290, 0], shown[290, 240, 0]
    assert line > dark, "the first pixels of a pruned patch are lighter"
    assert (shown[160:240, 160:240] == 200).all()
    assert len(np.unique(overlay(GREY, keep((2, 2), shape=(80, 80)), WHOLE)[200:, 200:])) == 1, "too narrow"


def test_the_overlay_leaves_its_arguments_alone() -> None:
    image, mask = GREY.copy(), keep((0, 0))
    overlay(image, mask)
    np.testing.assert_array_equal(image, GREY)


def test_the_count_is_written_in_the_corner() -> None:
    few, many = overlay(GREY, keep((3, 3))), overlay(GREY, keep((3, 3), (2, 2), (2, 3)))
    assert (few[:30, :80] != many[:30, :80]).any()


def test_an_image_with_fewer_pixels_than_patches_is_refused() -> None:
    with pytest.raises(SpecError, match="an image of 12x20 pixels, a grid of 16x16 patches"):
        overlay(np.zeros((20, 12, 3), np.uint8), keep(shape=(16, 16)))


@pytest.mark.parametrize("image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32)])
def test_a_malformed_image_is_refused(image: np.ndarray) -> None:
    with pytest.raises(SpecError):
        overlay(image, keep())
