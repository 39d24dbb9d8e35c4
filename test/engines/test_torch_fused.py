"""The model arranged for a GPU gives the model's results, from the same weights."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters

from lightvla_ros.backends import torch_fused, torch_graph_engine
from lightvla_ros.backends.torch_fused import fused
from lightvla_ros.backends.torch_graph_engine import TorchGraphEngine
from lightvla_ros.model import LightVla
from lightvla_ros.model.decoder import DecoderLayer


@pytest.fixture
def model(tiny_model: LightVla) -> LightVla:
    return copy.deepcopy(tiny_model)


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compile as on a GPU, in one piece, but run what was traced by PyTorch's own kernels."""

    def trace(forward: Callable[..., Tensor], *, dynamic: bool) -> Any:
        return torch.compile(forward, dynamic=dynamic, fullgraph=True, backend="eager")

    torch._dynamo.reset()
    counters.clear()
    monkeypatch.setattr(torch_fused, "_compiled", trace)


def decode(model: LightVla, retained: int, prompt: int) -> Tensor:
    """Actions of random tokens of which the last one and the last prompt token are padding."""
    generator = torch.Generator().manual_seed(retained * 100 + prompt)
    D = model.config.hidden_size
    with torch.inference_mode():
        hidden = model.decode(
            torch.randn(1, retained, D, generator=generator),
            torch.arange(retained)[None],
            torch.randn(1, prompt, D, generator=generator),
            torch.randn(1, 8, generator=generator),
            visual_mask=torch.arange(retained)[None] < retained - 1,
            prompt_mask=torch.arange(prompt)[None] < prompt - 1,
        )
        return model.action_head(hidden)


def assert_same_results(model: LightVla, *, compiled: bool) -> None:
    faster = fused(model, compiled=compiled)
    for retained, prompt in ((32, 12), (4, 12), (16, 4), (7, 5)):
        expected = decode(model, retained, prompt)
        torch.testing.assert_close(decode(faster, retained, prompt), expected, atol=2e-5, rtol=0)
    model.double()  # sums over a patch in another order are seen in float32
    pixels = torch.randn(1, 12, 56, 56, generator=torch.Generator().manual_seed(0)).double()
    with torch.inference_mode():
        expected = model.encode_images(pixels)
        torch.testing.assert_close(fused(model, compiled=compiled).encode_images(pixels), expected)


def test_fused_layers_give_the_models_results(model: LightVla) -> None:
    assert_same_results(model, compiled=False)


def test_one_compilation_serves_every_length(model: LightVla, traced: None) -> None:
    assert_same_results(model, compiled=True)
    # A block of each tower, a decoder layer for all rows, and the last one for the head's.
    assert counters["stats"]["unique_graphs"] == 4


def test_joined_weights_exist_once(model: LightVla) -> None:
    before = copy.deepcopy(model.state_dict())
    layer = fused(model, compiled=False).language_model.model.layers[0]
    original = model.language_model.model.layers[0]
    assert isinstance(layer, DecoderLayer)
    assert isinstance(original, DecoderLayer)
    q_proj, gate_proj = original.self_attn.q_proj, original.mlp.gate_proj
    assert q_proj.weight.untyped_storage().data_ptr() == layer.self_attn.qkv.untyped_storage().data_ptr()
    assert gate_proj.weight.untyped_storage().data_ptr() == layer.mlp.gate_up.untyped_storage().data_ptr()
    assert type(original) is DecoderLayer
    for name, weight in model.state_dict().items():
        torch.testing.assert_close(weight, before[name], rtol=0, atol=0)


def test_a_model_can_still_be_trained_after_it_was_fused(model: LightVla) -> None:
    model.requires_grad_(True)
    with torch.inference_mode():
        fused(model, compiled=False)
    hidden = model.decode(
        torch.randn(1, 3, 32), torch.arange(3)[None], torch.randn(1, 2, 32), torch.zeros(1, 8)
    )
    hidden.sum().backward()
    assert model.language_model.model.layers[0].self_attn.k_proj.weight.grad is not None


def test_the_engine_runs_the_fused_model_alone(model: LightVla, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = TorchGraphEngine(model, retained_buckets=(32,), prompt_buckets=(4,), capture=False)

    def unfused(*_: Any) -> Any:
        raise AssertionError("a part of the model that has a faster form was run as it is")

    for part in (model.language_model.model.layers[0], model.action_head.model.fc2):
        monkeypatch.setattr(part, "forward", unfused)
    for tower in model.vision_backbone.towers():
        monkeypatch.setattr(tower.patch_embed, "forward", unfused)
    rng = np.random.default_rng(0)
    patches = engine.encode_images(rng.normal(size=(1, 12, 56, 56)).astype(np.float32))
    prompt, proprio = engine.encode_prompt(np.arange(4, 8)), np.zeros(8, dtype=np.float32)
    actions = engine.decode(patches, engine.prune(patches, prompt, proprio), prompt, proprio)
    assert np.isfinite(actions).all()
    engine.close()


def test_where_the_compiler_fails_the_engine_runs_without(
    model: LightVla, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def failing(*_: Any, **__: Any) -> Any:
        raise RuntimeError("Failed to find C compiler")

    monkeypatch.setattr(torch_fused, "_compiled", lambda *_, **__: failing)
    monkeypatch.setattr(torch_graph_engine, "profits_from_compiling", lambda _: True)
    with caplog.at_level(logging.WARNING):
        engine = TorchGraphEngine(model, retained_buckets=(32,), prompt_buckets=(4,), capture=False)
    assert "torch.compile does not work here" in caplog.text
    assert "Failed to find C compiler" in caplog.text
    patches = engine.encode_images(torch.zeros(1, 12, 56, 56).numpy())
    assert torch.isfinite(patches).all()
    engine.close()
