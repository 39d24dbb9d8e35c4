"""The preprocessor for GPUs does what the CPU's does, but for how a byte in millions is rounded."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from lightvla_ros.backends.torch_preprocess import TorchPreprocessor
from lightvla_ros.core.errors import ObservationError
from lightvla_ros.core.preprocess import Fit, ImagePreprocessor

DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU")],
    ),
]


def images(*sizes: tuple[int, int], seed: int = 0) -> list[NDArray[np.uint8]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("center_crop", [True, False])
@pytest.mark.parametrize("fit", ["stretch", "pad", "crop"])
def test_bytes_are_those_of_the_cpu_but_for_rounding(fit: Fit, center_crop: bool, device: str) -> None:
    options = {"image_size": 56, "center_crop": center_crop, "fit": fit}
    exact, faster = ImagePreprocessor(**options), ImagePreprocessor(**options)
    preprocess = TorchPreprocessor(faster, torch.device(device))
    for seed, sizes in enumerate([[(120, 160), (97, 61)], [(56, 56), (57, 200)], [(480, 640)]]):
        cameras = images(*sizes, seed=seed)
        expected, got = exact(cameras), preprocess(cameras)
        assert got.device.type == device
        assert got.dtype == torch.float32
        assert got.shape == expected.shape
        difference = np.abs(got.cpu().numpy() - expected)
        step = max(np.diff(table).max() for table in exact.tables)
        assert difference.max() <= 1.01 * step
        assert np.mean(difference > 0) < 1e-4


def test_images_of_the_models_size_are_the_same_to_the_bit() -> None:
    options = {"image_size": 56, "center_crop": False}
    cameras = images((56, 56), (56, 56))
    got = TorchPreprocessor(ImagePreprocessor(**options), torch.device("cpu"))(cameras)
    np.testing.assert_array_equal(got.numpy(), ImagePreprocessor(**options)(cameras))


def test_a_wrong_image_is_refused_as_on_the_cpu() -> None:
    preprocess = TorchPreprocessor(ImagePreprocessor(), torch.device("cpu"))
    with pytest.raises(ObservationError, match="camera image"):
        preprocess([*images((56, 56)), np.zeros((5, 5), np.uint8)])


def test_a_result_is_not_written_again() -> None:
    preprocess = TorchPreprocessor(ImagePreprocessor(image_size=56), torch.device("cpu"))
    first = preprocess(images((64, 64)))
    before = first.clone()
    preprocess(images((64, 64), seed=1))
    torch.testing.assert_close(first, before, rtol=0, atol=0)
