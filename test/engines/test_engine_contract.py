"""What every engine promises, on every engine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from lightvla_ros.backends.comparison import EngineSample, compare
from lightvla_ros.backends.loading import LoadedEngine, load_engine
from lightvla_ros.commands._inputs import random_samples
from lightvla_ros.core.errors import EngineError

BACKENDS = ("torch", "onnxruntime")
N = 32


@pytest.fixture(scope="module", params=BACKENDS)
def loaded(request: pytest.FixtureRequest, tiny_bundle: Path) -> Iterator[LoadedEngine]:
    loaded = load_engine(tiny_bundle, request.param, num_threads=1)
    yield loaded
    loaded.engine.close()


@pytest.fixture(scope="module")
def samples(tiny_bundle: Path) -> list[EngineSample]:
    return random_samples(load_engine(tiny_bundle, num_threads=1), 4, seed=1)


def run(loaded: LoadedEngine, sample: EngineSample) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    engine = loaded.engine
    patches, prompt = engine.encode_images(sample.pixel_values), engine.encode_prompt(sample.input_ids)
    retained = engine.prune(patches, prompt, sample.proprio)
    return retained, engine.decode(patches, retained, prompt, sample.proprio)


def test_the_retained_set_is_ascending_unique_and_in_range(
    loaded: LoadedEngine, samples: list[EngineSample]
) -> None:
    for sample in samples:
        retained, _ = run(loaded, sample)
        assert retained.dtype == np.int64
        assert 1 <= len(retained) <= N
        assert (np.diff(retained) > 0).all()
        assert 0 <= retained[0] <= retained[-1] < N


def test_actions_are_one_finite_float32_chunk(loaded: LoadedEngine, samples: list[EngineSample]) -> None:
    _, actions = run(loaded, samples[0])
    assert (actions.shape, actions.dtype) == ((8, 7), np.float32)
    assert np.isfinite(actions).all()


def test_the_same_input_gives_the_same_actions(loaded: LoadedEngine, samples: list[EngineSample]) -> None:
    first_retained, first = run(loaded, samples[0])
    run(loaded, samples[1])
    retained, again = run(loaded, samples[0])
    np.testing.assert_array_equal(retained, first_retained)
    np.testing.assert_array_equal(again, first)


def test_an_encoded_prompt_serves_many_images(loaded: LoadedEngine, samples: list[EngineSample]) -> None:
    prompt = loaded.engine.encode_prompt(samples[0].input_ids)
    for sample in samples[:2]:
        patches = loaded.engine.encode_images(sample.pixel_values)
        mixed = EngineSample(
            input_ids=samples[0].input_ids, pixel_values=sample.pixel_values, proprio=sample.proprio
        )
        retained, actions = run(loaded, mixed)
        np.testing.assert_array_equal(loaded.engine.prune(patches, prompt, sample.proprio), retained)
        np.testing.assert_array_equal(
            loaded.engine.decode(patches, retained, prompt, sample.proprio), actions
        )


@pytest.mark.parametrize("count", [1, 2, N])
def test_any_number_of_tokens_can_be_decoded(
    loaded: LoadedEngine, samples: list[EngineSample], count: int
) -> None:
    sample = samples[0]
    patches = loaded.engine.encode_images(sample.pixel_values)
    prompt = loaded.engine.encode_prompt(sample.input_ids)
    actions = loaded.engine.decode(patches, np.arange(count), prompt, sample.proprio)
    assert actions.shape == (8, 7)


def test_what_is_retained_decides_the_actions(loaded: LoadedEngine, samples: list[EngineSample]) -> None:
    sample = samples[0]
    patches = loaded.engine.encode_images(sample.pixel_values)
    prompt = loaded.engine.encode_prompt(sample.input_ids)
    few, other = (
        loaded.engine.decode(patches, np.array(indices), prompt, sample.proprio)
        for indices in ([0, 1], [0, 2])
    )
    assert np.abs(few - other).max() > 1e-4


def test_inputs_that_do_not_fit_are_an_engine_error(
    loaded: LoadedEngine, samples: list[EngineSample]
) -> None:
    with pytest.raises(EngineError, match="vision"):
        loaded.engine.encode_images(samples[0].pixel_values[:, :3])
    with pytest.raises(EngineError, match="prompt"):
        loaded.engine.encode_prompt(np.array([1, 10_000]))


@pytest.mark.parametrize("num_threads", [1, 2])
def test_onnxruntime_gives_what_torch_gives(
    tiny_bundle: Path, samples: list[EngineSample], num_threads: int
) -> None:
    reference = load_engine(tiny_bundle, "torch").engine
    engine = load_engine(tiny_bundle, "onnxruntime", num_threads=num_threads).engine
    for sample in samples:
        comparison = compare(reference, engine, sample)
        assert comparison.kept_iou == 1.0
        assert comparison.max_abs_error < 1e-4


def test_a_closed_engine_says_so(tiny_bundle: Path, samples: list[EngineSample]) -> None:
    engine = load_engine(tiny_bundle, "onnxruntime").engine
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.encode_images(samples[0].pixel_values)


def test_padding_the_decoder_changes_nothing(tiny_bundle: Path) -> None:
    session = onnxruntime.InferenceSession(tiny_bundle / "decoder.onnx", providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    patches = rng.normal(size=(1, N, 32)).astype(np.float32)
    tokens = rng.normal(size=(1, 6, 32)).astype(np.float32)
    indices = np.array([[3, 4, 9, 20, 31]])
    proprio = rng.uniform(-1, 1, (1, 8)).astype(np.float32)

    def decode(indices: NDArray[np.int64], tokens: NDArray[np.float32]) -> NDArray[np.float32]:
        feed = {
            "patches": patches,
            "retained_indices": indices,
            "retained_count": np.array([5]),
            "prompt_tokens": tokens,
            "prompt_length": np.array([6]),
            "proprio": proprio,
        }
        return session.run(None, feed)[0]

    exact = decode(indices, tokens)
    wide = np.concatenate([indices, np.full((1, 11), 7)], axis=1)
    long = np.concatenate([tokens, np.full((1, 4, 32), 5, dtype=np.float32)], axis=1)
    np.testing.assert_allclose(decode(wide, tokens), exact, atol=1e-5)
    np.testing.assert_allclose(decode(indices, long), exact, atol=1e-5)
    np.testing.assert_allclose(decode(wide, long), exact, atol=1e-5)


def test_scores_that_are_not_finite_retain_nothing(loaded: LoadedEngine, samples: list[EngineSample]) -> None:
    patches = loaded.engine.encode_images(samples[0].pixel_values)
    prompt = loaded.engine.encode_prompt(samples[0].input_ids)
    for bad in (np.float32("nan"), np.float32("inf")):
        spoilt = patches.copy() if isinstance(patches, np.ndarray) else patches.clone()
        spoilt[0, 5, 0] = float(bad)
        assert len(loaded.engine.prune(spoilt, prompt, samples[0].proprio)) == 0
