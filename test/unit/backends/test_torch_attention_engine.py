"""Pruning by attention inside the decoder."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from lightvla_ros.backends.torch_attention_engine import TorchAttentionEngine
from lightvla_ros.backends.torch_engine import TorchEngine
from lightvla_ros.core.errors import ConfigError, EngineError
from lightvla_ros.model import LightVla, ModelConfig

PROPRIO = np.linspace(-1, 1, 8, dtype=np.float32)
PROMPT = np.array([1, 7, 9, 11])
N = 32


@pytest.fixture(scope="module")
def deep_model(tiny_config: ModelConfig, statistics: dict[str, Any]) -> LightVla:
    torch.manual_seed(0)
    model = LightVla(replace(tiny_config, num_layers=4), {"first_no_noops": statistics["first_no_noops"]})
    return model.eval().requires_grad_(False)


def inputs(engine: TorchEngine) -> tuple[Any, Any]:
    pixels = np.random.default_rng(0).normal(size=(1, 12, 56, 56)).astype(np.float32)
    return engine.encode_images(pixels), engine.encode_prompt(PROMPT)


def test_with_every_token_it_is_the_unpruned_policy(deep_model: LightVla) -> None:
    engine, plain = TorchAttentionEngine(deep_model, N), TorchEngine(deep_model)
    patches, prompt = inputs(engine)
    retained = engine.prune(patches, prompt, PROPRIO)
    assert retained.tolist() == list(range(N))
    expected = plain.decode(patches, retained, prompt, PROPRIO)
    np.testing.assert_allclose(engine.decode(patches, retained, prompt, PROPRIO), expected, atol=1e-5)


def test_the_most_attended_tokens_stay(deep_model: LightVla) -> None:
    engine = TorchAttentionEngine(deep_model, 5)
    patches, prompt = inputs(engine)
    attention = deep_model.language_model.model.layers[1].self_attn
    seen = []
    handle = attention.register_forward_pre_hook(lambda _, arguments: seen.append(arguments))
    retained = engine.prune(patches, prompt, PROPRIO)
    handle.remove()
    x, cos, sin, _, rows = seen[0]
    # Attention to rows of an identity matrix is its probabilities.
    probabilities = []
    for head in range(4):
        columns = slice(8 * head, 8 * (head + 1))

        def rotated(y: torch.Tensor) -> torch.Tensor:
            left, right = y.chunk(2, dim=-1)
            return y * cos[0, 0] + torch.cat([-right, left], dim=-1) * sin[0, 0]

        q = rotated(attention.q_proj(x[0])[:, columns])
        k = rotated(attention.k_proj(x[0])[:, columns])
        identity = torch.eye(len(k))
        probabilities.append(F.scaled_dot_product_attention(q[None], k[None], identity[None])[0])
    text = slice(len(k) - N - len(PROMPT) + 1, len(k) - N)
    received = torch.stack(probabilities).mean(0)[text, -N:].amax(0)
    assert rows == slice(None)
    assert set(retained.tolist()) == set(received.topk(5).indices.tolist())
    assert retained.tolist() == sorted(retained.tolist())


def test_decoding_needs_the_frames_own_pruning(deep_model: LightVla) -> None:
    engine = TorchAttentionEngine(deep_model, 5)
    patches, prompt = inputs(engine)
    retained = engine.prune(patches, prompt, PROPRIO)
    assert engine.decode(patches, retained, prompt, PROPRIO).shape == (8, 7)
    with pytest.raises(EngineError, match="decode before prune; .*Fix: call `prune`"):
        engine.decode(patches, retained, prompt, PROPRIO)


def test_what_cannot_be_retained_is_refused(deep_model: LightVla, tiny_model: LightVla) -> None:
    for model, count in ((deep_model, 0), (deep_model, N + 1), (tiny_model, 5)):
        with pytest.raises(ConfigError, match="layers"):
            TorchAttentionEngine(model, count)
