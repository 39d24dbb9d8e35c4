"""Mosaics and strips of inferences."""

from __future__ import annotations

import numpy as np
import pytest
from overlay_cases import GREY, WHOLE, keep

from lightvla_ros.core.errors import SpecError
from lightvla_ros.core.inference_record import CameraRecord, InferenceRecord
from lightvla_ros.view.layout import draw_record, mosaic


def test_the_mosaic_has_a_column_per_camera_and_one_size_for_every_frame() -> None:
    images = {"third_person": np.zeros((480, 640, 3), np.uint8), "wrist": np.zeros((112, 112, 3), np.uint8)}
    masks = {"third_person": keep((0, 0)), "wrist": keep((1, 1))}
    result = mosaic(images, masks, "pick up the red cube: 2 of 32")
    assert result.dtype == np.uint8
    assert result.shape[0] % 2 == 0
    assert result.shape[1] == 342 + 256
    assert mosaic(images, masks, "x" * 500).shape == result.shape
    assert mosaic(images, masks, "").shape == result.shape


def test_a_long_caption_is_shrunk_not_cut() -> None:
    images, masks = {"wrist": GREY}, {"wrist": keep()}
    strip = mosaic(images, masks, "put the yellow can " * 8)[512:]
    assert strip.max() > 60
    assert (strip[:, -6:] == strip[0, 0]).all()


def test_a_record_is_drawn_with_its_own_masks_and_regions() -> None:
    camera = CameraRecord(
        topic="/wrist", stamp_ns=1, upside_down=False, grid=(4, 4), region=WHOLE, retained=(5, 10)
    )
    record = InferenceRecord(
        stamp_ns=1,
        engine="mini",
        backend="test",
        instruction="push",
        epoch=1,
        state=(0.0,),
        actions=((0.0,),),
        step_period_ns=1,
        taken=True,
        timings_ms={},
        cameras={"wrist": camera},
    )
    drawn = draw_record(record, {"wrist": GREY})
    masks = {"wrist": keep((1, 1), (2, 2))}
    expected = mosaic({"wrist": GREY}, masks, "push: 2 of 16 visual tokens", {"wrist": WHOLE})
    np.testing.assert_array_equal(drawn, expected)


@pytest.mark.parametrize("masks", [{}, {"other": keep()}, {"wrist": np.zeros((4, 4), np.uint8)}])
def test_a_missing_or_malformed_mask_is_refused(masks: dict[str, np.ndarray]) -> None:
    with pytest.raises(SpecError):
        mosaic({"wrist": GREY}, masks, "")
