"""Camera image to pixel values: steps, options, refusals. Parity with the reference is in test/parity."""

from __future__ import annotations

import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from lightvla_ros.core.errors import ConfigError, ObservationError
from lightvla_ros.core.preprocess import (
    MAX_HELPERS,
    Fit,
    ImagePreprocessor,
    center_crop,
    pixel_values,
    resize,
    resize_224,
)


def make_image(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Smooth colours and some noise, as a camera gives."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    waves = [np.sin(x / 17 + c) * np.cos(y / 11 - c) for c in range(3)]
    return np.clip(128 + 90 * np.stack(waves, axis=-1) + rng.normal(0, 6, (height, width, 3)), 0, 255).astype(
        np.uint8
    )


def constant(height: int, width: int, colour: tuple[int, int, int]) -> np.ndarray:
    return np.full((height, width, 3), colour, dtype=np.uint8)


@pytest.mark.parametrize(("height", "width"), [(480, 640), (256, 256), (100, 60)])
def test_the_fast_path_equals_its_steps_one_by_one(height: int, width: int) -> None:
    first, second = make_image(height, width), make_image(height, width, seed=1)
    result = ImagePreprocessor()([first, second])
    expected = [pixel_values(center_crop(resize_224(image))) for image in (first, second)]
    assert result.shape == (1, 12, 224, 224)
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result[0], np.concatenate(expected))


def test_towers_cameras_and_size_are_options() -> None:
    image = make_image(90, 120)
    preprocessor = ImagePreprocessor(
        image_size=112, normalizations=("siglip",), jpeg=False, center_crop=False
    )
    result = preprocessor([image])
    assert result.shape == (1, 3, 112, 112)
    np.testing.assert_array_equal(result[0], pixel_values(resize(image, 112, jpeg=False), ("siglip",)))


def test_a_result_is_not_overwritten_by_the_next_call() -> None:
    preprocessor = ImagePreprocessor(jpeg=False)
    first = preprocessor([make_image(300, 400)])
    kept = first.copy()
    preprocessor([make_image(300, 400, seed=9)])
    np.testing.assert_array_equal(first, kept)


@pytest.mark.parametrize("fit", ["stretch", "pad", "crop"])
@pytest.mark.parametrize("jpeg", [True, False])
def test_cameras_side_by_side_equal_cameras_one_by_one(fit: Fit, jpeg: bool) -> None:
    rng = np.random.default_rng(0)
    together = ImagePreprocessor(image_size=96, jpeg=jpeg, fit=fit)
    alone = ImagePreprocessor(image_size=96, jpeg=jpeg, fit=fit)
    results, expected = [], []
    for cameras in (2, 3, 1, 2, 6, 0, 2, 3):
        sizes = [(96, 96), (480, 640), *rng.integers(1, 400, (cameras, 2)).tolist()]
        images = [make_image(*sizes[i], seed=i) for i in rng.integers(0, len(sizes), cameras)]
        results.append(together(images))
        expected.append([alone([image])[0] for image in images])
    # All at the end: no result may be written by a later call.
    for result, parts in zip(results, expected, strict=True):
        np.testing.assert_array_equal(result[0], np.concatenate([np.empty((0, 96, 96)), *parts]))


@pytest.mark.parametrize("jpeg", [True, False])
def test_of_several_wrong_cameras_the_first_is_told(jpeg: bool) -> None:
    preprocessor = ImagePreprocessor(jpeg=jpeg)
    good = make_image(480, 640)
    grey, rgba, wide = (np.zeros(shape, np.uint8) for shape in ((4, 4), (4, 4, 4), (5, 5, 5)))
    expected = preprocessor([good, good])
    for images, told in (
        ([good, grey], r"\(4, 4\)"),
        ([grey, good], r"\(4, 4\)"),
        ([good, rgba, grey], r"\(4, 4, 4\)"),
        ([wide, rgba, grey], r"\(5, 5, 5\)"),
        ([good, good, good, wide, good, grey], r"\(5, 5, 5\)"),
    ):
        with pytest.raises(ObservationError, match=rf"^camera image; got uint8 {told}"):
            preprocessor(images)
        np.testing.assert_array_equal(preprocessor([good, good]), expected)


def test_preprocessors_do_not_pile_up_threads() -> None:
    before = threading.active_count()
    images = [make_image(20, 30, seed=i) for i in range(6)]
    for _ in range(30):
        ImagePreprocessor(image_size=16)(images)
    assert threading.active_count() <= before + MAX_HELPERS


def test_a_preprocessor_in_use_can_be_pickled() -> None:
    images = [make_image(20, 30), make_image(40, 30)]
    preprocessor = ImagePreprocessor(image_size=16)
    expected = preprocessor(images)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(preprocessor))(images), expected)


def test_threads_come_late_survive_a_fork_and_let_the_process_end() -> None:
    script = (
        "import os, threading\n"
        "import numpy as np\n"
        "from lightvla_ros.core.preprocess import ImagePreprocessor\n"
        "image = np.random.default_rng(0).integers(0, 256, (48, 64, 3)).astype(np.uint8)\n"
        "preprocessor = ImagePreprocessor(image_size=16)\n"
        "preprocessor([image])\n"
        "ImagePreprocessor(image_size=16, jpeg=False)([image, image])\n"
        "assert threading.active_count() == 1\n"
        "expected = preprocessor([image, image])\n"
        "assert threading.active_count() == 2\n"
        "child = os.fork()\n"
        "same = (preprocessor([image, image]) == expected).all()\n"
        "if child == 0:\n    os._exit(0 if same else 3)\n"
        "assert same and os.waitpid(child, 0)[1] == 0\n"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False, timeout=60).returncode == 0


def test_an_image_of_the_target_size_skips_jpeg_and_resize() -> None:
    image = make_image(224, 224)
    result = resize_224(image)
    np.testing.assert_array_equal(result, image)
    assert not np.shares_memory(result, image)


def test_the_jpeg_round_trip_changes_what_resize_gives() -> None:
    image = make_image(480, 640)
    assert (resize_224(image) != resize_224(image, jpeg=False)).any()


@pytest.mark.parametrize("value", [0, 1, 127, 254, 255])
def test_a_plain_colour_survives_resize_and_crop(value: int) -> None:
    image = constant(480, 640, (value, value, value))
    np.testing.assert_array_equal(center_crop(resize_224(image, jpeg=False)), value)


def test_pixel_values_use_the_rounded_statistics() -> None:
    values = pixel_values(constant(2, 2, (255, 0, 51)))
    assert values[0, 0, 0] == pytest.approx((1.0 - 0.484375) / 0.228515625)
    assert values[1, 0, 0] == pytest.approx(-0.455078125 / 0.2236328125)
    assert values[2, 0, 0] == pytest.approx((0.2 - 0.40625) / 0.224609375)
    np.testing.assert_allclose(values[3:, 0, 0], [1.0, -1.0, -0.6], atol=1e-6)


def test_pad_keeps_the_aspect_between_black_bars() -> None:
    result = resize(constant(100, 200, (200, 100, 50)), 64, jpeg=False, fit="pad")
    assert (result[16:48] == (200, 100, 50)).all()
    assert (result[:16] == 0).all()
    assert (result[48:] == 0).all()


def test_crop_keeps_the_central_square() -> None:
    image = make_image(100, 200)
    np.testing.assert_array_equal(
        resize(image, 64, jpeg=False, fit="crop"), resize(image[:, 50:150], 64, jpeg=False)
    )


def test_a_view_with_strides_is_read_right() -> None:
    image = make_image(120, 160)
    flipped = image[::-1, ::-1]
    np.testing.assert_array_equal(resize_224(flipped), resize_224(flipped.copy()))


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 300, 3), (2000, 3, 3)])
def test_extreme_shapes_work_in_every_fit(shape: tuple[int, int, int]) -> None:
    for fit in ("stretch", "pad", "crop"):
        assert resize(np.zeros(shape, np.uint8), 32, fit=fit).shape == (32, 32, 3)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 4, 3), np.float32),
        np.zeros((4, 4), np.uint8),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        [[1, 2, 3]],
    ],
    ids=["float", "grey", "rgba", "empty", "list"],
)
def test_what_is_no_rgb_image_is_refused_with_a_way_out(image: object) -> None:
    calls: tuple[Callable[[Any], object], ...] = (
        resize_224,
        center_crop,
        pixel_values,
        lambda image: ImagePreprocessor(jpeg=False)([image]),
    )
    for call in calls:
        with pytest.raises(ObservationError, match=r"camera image; got .*expected a uint8 array.*Fix: "):
            call(image)


def test_only_a_square_image_is_cropped() -> None:
    with pytest.raises(ObservationError, match="square"):
        center_crop(np.zeros((4, 5, 3), np.uint8))


@pytest.mark.parametrize("options", [{"image_size": 0}, {"fit": "zoom"}, {"normalizations": ("imagenet",)}])
def test_unknown_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        ImagePreprocessor(jpeg=False, **options)


def test_without_simplejpeg_only_the_round_trip_is_refused() -> None:
    script = (
        "import sys; sys.modules['simplejpeg'] = None\n"
        "from lightvla_ros.core.preprocess import ImagePreprocessor\n"
        "from lightvla_ros.core.errors import ConfigError\n"
        "ImagePreprocessor(jpeg=False)\n"
        "try:\n    ImagePreprocessor()\n"
        "except ConfigError as error:\n    sys.exit(0 if 'pip install simplejpeg' in str(error) else 3)\n"
        "sys.exit(4)\n"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False, timeout=60).returncode == 0
