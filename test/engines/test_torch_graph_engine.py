"""The padded torch engine equals the exact one at every bucket edge; on a GPU its stages are CUDA graphs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from lightvla_ros.backends.torch_engine import TorchEngine
from lightvla_ros.backends.torch_graph_engine import TorchGraphEngine
from lightvla_ros.core.errors import EngineError
from lightvla_ros.core.policy import Engine
from lightvla_ros.model import LightVla

RETAINED, PROMPTS = (4, 16, 32), (4, 12)
DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU")],
    ),
]


@pytest.fixture(scope="module", params=DEVICES)
def engine(request: pytest.FixtureRequest, tiny_model: LightVla) -> Iterator[TorchGraphEngine]:
    import copy

    model = copy.deepcopy(tiny_model).to(request.param)
    capture = request.param == "cuda"
    engine = TorchGraphEngine(model, retained_buckets=RETAINED, prompt_buckets=PROMPTS, capture=capture)
    yield engine
    engine.close()


@pytest.fixture
def exact(tiny_model: LightVla) -> TorchEngine:
    return TorchEngine(tiny_model)


def inputs(
    seed: int, prompt_tokens: int
) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    ids = rng.integers(4, 64, prompt_tokens + 1)
    pixels = rng.normal(size=(1, 12, 56, 56)).astype(np.float32)
    return ids, pixels, rng.uniform(-1, 1, 8).astype(np.float32)


def chunk(engine: Engine, seed: int, prompt_tokens: int, forced: NDArray[np.int64] | None = None) -> tuple:
    ids, pixels, proprio = inputs(seed, prompt_tokens)
    patches, prompt = engine.encode_images(pixels), engine.encode_prompt(ids)
    retained = engine.prune(patches, prompt, proprio)
    indices = retained if forced is None else forced
    return retained, engine.decode(patches, indices, prompt, proprio)


@pytest.mark.parametrize("prompt_tokens", [1, 4, 5, 11, 12])
def test_padding_of_prompt_and_retained_tokens_changes_nothing(
    engine: TorchGraphEngine, exact: TorchEngine, prompt_tokens: int
) -> None:
    for seed in range(3):
        retained, actions = chunk(engine, seed, prompt_tokens)
        expected_retained, expected = chunk(exact, seed, prompt_tokens)
        np.testing.assert_array_equal(retained, expected_retained)
        np.testing.assert_allclose(actions, expected, atol=2e-5)


@pytest.mark.parametrize("count", [1, 3, 4, 5, 15, 16, 17, 31, 32])
def test_a_forced_set_at_every_bucket_edge_is_decoded_as_it_is(
    engine: TorchGraphEngine, exact: TorchEngine, count: int
) -> None:
    forced = np.sort(np.random.default_rng(count).permutation(32)[:count])
    _, actions = chunk(engine, 7, 6, forced)
    _, expected = chunk(exact, 7, 6, forced)
    np.testing.assert_allclose(actions, expected, atol=2e-5)


def test_nothing_of_a_longer_prompt_or_set_leaks_into_a_shorter_one(
    engine: TorchGraphEngine, exact: TorchEngine
) -> None:
    chunk(engine, 1, 12, np.arange(32))
    _, actions = chunk(engine, 2, 2, np.array([30]))
    _, expected = chunk(exact, 2, 2, np.array([30]))
    np.testing.assert_allclose(actions, expected, atol=2e-5)


def test_what_the_engine_returned_does_not_change_with_the_next_frame(engine: TorchGraphEngine) -> None:
    retained, actions = chunk(engine, 3, 5)
    before = retained.copy(), actions.copy()
    chunk(engine, 4, 9)
    np.testing.assert_array_equal(retained, before[0])
    np.testing.assert_array_equal(actions, before[1])


def test_the_sets_of_two_frames_are_told_apart(engine: TorchGraphEngine, exact: TorchEngine) -> None:
    ids, pixels, proprio = inputs(5, 6)
    patches, prompt = engine.encode_images(pixels), engine.encode_prompt(ids)
    older = engine.prune(patches, prompt, proprio)
    engine.prune(patches, prompt, -proprio)
    actions = engine.decode(patches, older, prompt, proprio)
    exact_patches, exact_prompt = exact.encode_images(pixels), exact.encode_prompt(ids)
    np.testing.assert_allclose(actions, exact.decode(exact_patches, older, exact_prompt, proprio), atol=2e-5)


def test_a_prompt_longer_than_every_bucket_is_refused(engine: TorchGraphEngine) -> None:
    with pytest.raises(EngineError, match="prompt tokens; got 13"):
        engine.encode_prompt(np.arange(14))


def test_patches_of_another_engine_are_refused(engine: TorchGraphEngine, exact: TorchEngine) -> None:
    ids, pixels, proprio = inputs(0, 4)
    with pytest.raises(EngineError, match="somebody else"):
        engine.prune(exact.encode_images(pixels), engine.encode_prompt(ids), proprio)


def test_a_closed_engine_says_so(tiny_model: LightVla) -> None:
    engine = TorchGraphEngine(tiny_model, retained_buckets=(32,), prompt_buckets=(4,), capture=False)
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.encode_images(inputs(0, 4)[1])
