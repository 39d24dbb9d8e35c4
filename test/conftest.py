"""A model of the published structure that is small enough to run in milliseconds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from lightvla_ros.model import ModelConfig, VisionTowerConfig

if TYPE_CHECKING:
    from lightvla_ros.model import LightVla


@pytest.fixture(scope="session")
def statistics() -> dict[str, Any]:
    """Statistics of two data sets, different in every dimension."""

    def entry(scale: float) -> dict[str, Any]:
        action = {
            "q01": [-scale * (i + 1) for i in range(6)] + [0.0],
            "q99": [scale * (i + 2) for i in range(6)] + [1.0],
            "mask": [True] * 6 + [False],
        }
        return {"action": action, "proprio": {"q01": [-scale] * 8, "q99": [2 * scale] * 8}}

    return {"first_no_noops": entry(0.1), "second_no_noops": entry(0.2)}


@pytest.fixture(scope="session")
def tiny_config() -> ModelConfig:
    """Two towers, two cameras of 4 x 4 patches, two decoder layers."""
    first = VisionTowerConfig(
        embed_dim=16,
        depth=3,
        num_heads=2,
        mlp_dim=32,
        num_prefix_tokens=5,
        layer_scale=True,
        normalization="dinov2",
    )
    second = VisionTowerConfig(embed_dim=24, depth=3, num_heads=2, mlp_dim=40)
    return ModelConfig(
        towers={"featurizer": first, "fused_featurizer": second},
        image_size=56,
        hidden_size=32,
        intermediate_size=48,
        num_layers=2,
        num_heads=4,
        vocab_size=64,
        action_prefix_id=3,
    )


@pytest.fixture(scope="session")
def tiny_model(tiny_config: ModelConfig, statistics: dict[str, Any]) -> LightVla:
    """Random weights everywhere, so that no norm or bias is neutral; do not modify."""
    import torch

    from lightvla_ros.model import LightVla

    generator = torch.Generator().manual_seed(0)
    model = LightVla(tiny_config, {"first_no_noops": statistics["first_no_noops"]}).eval()
    with torch.no_grad():
        for weight in model.parameters():
            noise = torch.randn(weight.shape, generator=generator)
            weight.copy_(1 + 0.3 * noise if weight.ndim == 1 else 0.3 * noise)
    return model.requires_grad_(False)
