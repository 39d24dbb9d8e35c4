"""Low-rank adapters for models too large to train whole (spec §7.1), made by `peft`.

As in the reference, every linear layer and the patch embeddings get one; the base is frozen, and the
action head and the proprio projector are trained whole. Our network lacks the layers that the reference
wraps although no output depends on them, so it has 425 adapters where the reference has 439.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from lightvla_ros.model import LightVla

# Trained whole, without adapters.
_WHOLE = ("action_head", "proprio_projector", "pruner")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraSettings:
    """Sizes of the adapters; the defaults are the reference's.

    Attributes:
        rank: inner width r.
        alpha: the adapter's output is scaled by alpha / rank.
    """

    rank: int = 32
    alpha: int = 16


def add_adapters(model: LightVla, settings: LoraSettings) -> None:
    """Freeze a model but for what is trained whole, and put adapters beside its layers, in place.

    A ~ normal with standard deviation 1 / rank, B = 0, so nothing changes yet. What is trained is float32.
    """
    from peft import LoraConfig, inject_adapter_in_model

    targets = [
        name
        for name, module in model.named_modules()
        if isinstance(module, (nn.Linear, nn.Conv2d)) and not name.startswith(_WHOLE)
    ]
    inject_adapter_in_model(
        LoraConfig(
            r=settings.rank,
            lora_alpha=settings.alpha,
            lora_dropout=0.0,
            init_lora_weights="gaussian",
            target_modules=targets,
        ),
        model,
    )
    for name, weight in model.named_parameters():
        weight.requires_grad_(".lora_" in name or name.startswith(_WHOLE))
        if weight.requires_grad:
            # Steps of a learning rate of 5e-4 are lost in bfloat16's eight bits.
            weight.data = weight.data.float()


def merged(model: LightVla) -> LightVla:
    """Return a model without adapters that computes the same; weights without one are shared, not copied."""
    with torch.device("meta"):
        plain = LightVla(model.config, model.statistics)
    plain.load_state_dict(_merged_weights(model), assign=True)
    return plain.eval()


def _merged_weights(model: LightVla) -> dict[str, Tensor]:
    from peft.tuners.lora import LoraLayer

    weights = {
        name.replace(".base_layer.", "."): tensor
        for name, tensor in model.state_dict().items()
        if ".lora_" not in name
    }
    for name, layer in model.named_modules():
        if isinstance(layer, LoraLayer):
            weight = weights[f"{name}.weight"]
            # To the CPU first: a second set of large weights may not fit beside the first on a GPU.
            change = cast(Any, layer).get_delta_weight("default").cpu().float()
            weights[f"{name}.weight"] = (weight.cpu().float() + change).to(weight.dtype)
    return weights
