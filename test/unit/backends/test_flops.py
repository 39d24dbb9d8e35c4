"""Operation counts against the published figures of the 7B model."""

from __future__ import annotations

import pytest
import torch

from lightvla_ros.backends.flops import stage_bytes, stage_flops, stage_weights
from lightvla_ros.model import LightVla
from lightvla_ros.model.config import ModelConfig

PROMPT = 28


@pytest.mark.parametrize(
    ("retained", "tera"), [(512, 8.949), (256, 5.440), (128, 3.711), (78, 3.040), (32, 2.426), (0, 1.999)]
)
def test_the_reference_costs_what_the_analysis_says(retained: int, tera: float) -> None:
    assert sum(stage_flops(ModelConfig(), retained, PROMPT, reference=True)) / 1e12 == pytest.approx(
        tera, abs=6e-4
    )


def test_without_its_pruner_the_reference_is_openvla_oft() -> None:
    flops = stage_flops(ModelConfig(), 512, PROMPT, reference=True)
    assert (flops.vision + flops.decoder) / 1e12 == pytest.approx(8.946, abs=6e-4)


@pytest.mark.parametrize(("retained", "saved"), [(512, 0.376), (78, 0.110)])
def test_the_exact_shortcuts_save_what_the_analysis_says(retained: int, saved: float) -> None:
    reference = stage_flops(ModelConfig(), retained, PROMPT, reference=True)
    ours = stage_flops(ModelConfig(), retained, PROMPT)
    pruner = reference.pruner - ours.pruner
    assert (sum(reference) - sum(ours) - pruner) / 1e12 == pytest.approx(saved, abs=1e-3)
    assert pruner == 4 * 512 * 56 * 4096, "the zero rows"


def test_only_the_decoder_shrinks_with_the_retained_count() -> None:
    few, many = (stage_flops(ModelConfig(), count, PROMPT, reference=True) for count in (78, 79))
    assert (few.vision, few.pruner) == (many.vision, many.pruner)
    assert (many.decoder - few.decoder) / 1e9 == pytest.approx(13.4, abs=0.05)


def test_the_weights_of_each_stage_are_those_the_network_has(tiny_model: LightVla) -> None:
    def count(*modules: torch.nn.Module) -> int:
        return sum(weight.numel() for module in modules for weight in module.parameters())

    decoder = tiny_model.language_model.model
    assert stage_weights(tiny_model.config) == (
        count(tiny_model.vision_backbone, tiny_model.projector),
        count(tiny_model.proprio_projector),
        count(decoder.layers, decoder.norm, tiny_model.action_head, tiny_model.proprio_projector),
    )


def test_the_full_models_weights_weigh_what_the_analysis_says() -> None:
    weights = stage_weights(ModelConfig())
    assert 2 * (weights.vision + weights.decoder) / 1e9 == pytest.approx(14.81, abs=5e-3)


def test_bytes_grow_by_one_row_per_retained_token_in_the_decoder_only() -> None:
    few, many = (stage_bytes(ModelConfig(), count, PROMPT, bytes_per_number=2) for count in (78, 79))
    assert [b - a for a, b in zip(few, many, strict=True)] == [0, 0, 2 * 4096]
