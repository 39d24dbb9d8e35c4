"""Operation counts against the published figures of the 7B model."""

from __future__ import annotations

import pytest

from lightvla_ros.backends.flops import stage_flops
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
