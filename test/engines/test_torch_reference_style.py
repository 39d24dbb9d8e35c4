"""The engine that does the published code's work gives our torch engine's actions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from lightvla_ros.backends.torch_engine import TorchEngine
from lightvla_ros.backends.torch_reference_style import ReferenceStyleEngine
from lightvla_ros.core.errors import EngineError
from lightvla_ros.core.policy import Engine
from lightvla_ros.model import LightVla


class Inputs:
    """One random frame for the tiny model."""

    def __init__(self, model: LightVla, seed: int) -> None:
        rng, config = np.random.default_rng(seed), model.config
        channels = 3 * len(config.towers) * config.num_cameras
        shape = (1, channels, config.image_size, config.image_size)
        self.pixels = rng.standard_normal(shape, dtype=np.float32)
        self.ids = np.concatenate([[config.bos_id], rng.integers(4, config.vocab_size, 4 + seed)])
        self.proprio = rng.uniform(-1, 1, config.proprio_dim).astype(np.float32)

    def run(
        self, engine: Engine, retained: NDArray[np.int64] | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Return what was retained, and the actions."""
        patches, prompt = engine.encode_images(self.pixels), engine.encode_prompt(self.ids)
        chosen = engine.prune(patches, prompt, self.proprio)
        retained = chosen if retained is None else retained
        return chosen, engine.decode(patches, retained, prompt, self.proprio)


@pytest.mark.parametrize("seed", range(4))
def test_same_retained_tokens_and_actions_as_our_engine(tiny_model: LightVla, seed: int) -> None:
    inputs = Inputs(tiny_model, seed)
    expected_retained, expected = inputs.run(TorchEngine(tiny_model))
    retained, actions = inputs.run(ReferenceStyleEngine(tiny_model))
    np.testing.assert_array_equal(retained, expected_retained)
    np.testing.assert_allclose(actions, expected, atol=1e-4)


@pytest.mark.parametrize("count", [1, 7, 32])
def test_same_actions_for_a_forced_retained_set(tiny_model: LightVla, count: int) -> None:
    inputs = Inputs(tiny_model, seed=5)
    indices = np.sort(np.random.default_rng(count).permutation(32)[:count])
    _, expected = inputs.run(TorchEngine(tiny_model), indices)
    _, actions = inputs.run(ReferenceStyleEngine(tiny_model), indices)
    np.testing.assert_allclose(actions, expected, atol=1e-4)


@pytest.mark.parametrize("offset", [0, 1, 2])
def test_the_head_reads_the_rows_the_checkpoint_says(tiny_model: LightVla, offset: int) -> None:
    model = LightVla(replace(tiny_model.config, action_row_offset=offset)).eval()
    model.load_state_dict(tiny_model.state_dict())
    inputs = Inputs(model, seed=6)
    np.testing.assert_allclose(
        inputs.run(ReferenceStyleEngine(model))[1], inputs.run(TorchEngine(model))[1], atol=1e-4
    )


def test_the_shared_model_is_left_as_it_was(tiny_model: LightVla) -> None:
    before = {name: weight.clone() for name, weight in tiny_model.state_dict().items()}
    inputs = Inputs(tiny_model, seed=0)
    inputs.run(ReferenceStyleEngine(tiny_model))
    after = tiny_model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_pixels_of_another_size_are_refused(tiny_model: LightVla) -> None:
    with pytest.raises(EngineError, match="vision"):
        ReferenceStyleEngine(tiny_model).encode_images(np.zeros((1, 12, 28, 28), dtype=np.float32))
