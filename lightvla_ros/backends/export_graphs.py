"""The parts of a bundle as torch modules with example inputs, ready to trace.

They only call the stages of `LightVla`; there is no second implementation of the network. Nothing here has
memory: modules and examples are on torch's "meta" device, so that a model of any size is traced in none.
What comes from and goes to the host is float32 in every precision (see `manifest.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim

from lightvla_ros.core.policy_config import PolicyConfig
from lightvla_ros.model.config import ModelConfig
from lightvla_ros.model.lightvla import LightVla
from lightvla_ros.model.pruner import rms_normalize


class _Prompt(nn.Module):
    def __init__(self, model: LightVla) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor) -> tuple[Tensor, Tensor]:
        tokens = self.model.embed_prompt(input_ids)
        return tokens, rms_normalize(tokens)


class _Vision(nn.Module):
    def __init__(self, model: LightVla) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: Tensor) -> Tensor:
        return self.model.encode_images(pixel_values.to(_dtype(self.model)))


class _Pruner(nn.Module):
    def __init__(self, model: LightVla) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, patches: Tensor, prompt_keys: Tensor, prompt_length: Tensor, proprio: Tensor
    ) -> tuple[Tensor, Tensor]:
        keep_mask = self.model.prune(
            patches,
            prompt_keys,
            proprio.to(_dtype(self.model)),
            prompt_mask=_real(prompt_keys.shape[1], prompt_length),
        )
        retained = self.model.pruner.retained(keep_mask)
        return retained.order, retained.count


class _Decoder(nn.Module):
    def __init__(self, model: LightVla) -> None:
        super().__init__()
        self.model = model

    def forward(  # noqa: PLR0917 (one per input of the graph)
        self,
        patches: Tensor,
        retained_indices: Tensor,
        retained_count: Tensor,
        prompt_tokens: Tensor,
        prompt_length: Tensor,
        proprio: Tensor,
    ) -> Tensor:
        """Decode; `retained_indices` and `prompt_tokens` may be padded behind their true lengths."""
        hidden = self.model.decode(
            patches.gather(1, retained_indices[:, :, None].expand(-1, -1, patches.shape[-1])),
            retained_indices,
            prompt_tokens,
            proprio.to(_dtype(self.model)),
            visual_mask=_real(retained_indices.shape[1], retained_count),
            prompt_mask=_real(prompt_tokens.shape[1], prompt_length),
        )
        return self.model.action_head(hidden).float()


def _dtype(model: LightVla) -> torch.dtype:
    return model.projector.fc1.weight.dtype


def _real(padded: int, length: Tensor) -> Tensor:
    """Mask bool [B, padded] of the rows before each int64 [B] length."""
    return torch.arange(padded, device=length.device)[None] < length[:, None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """One part before export.

    Attributes:
        module: what to trace.
        inputs: name -> example.
        dynamic: input name -> {axis: dimension}; absent inputs are static.
        outputs: names in order.
        embedding_rows: rows of the embedding table that the module holds; None for all.
    """

    module: nn.Module
    inputs: Mapping[str, Tensor]
    dynamic: Mapping[str, Mapping[int, Any]]
    outputs: tuple[str, ...]
    embedding_rows: tuple[int, ...] | None = None


def graphs(config: ModelConfig, policy: PolicyConfig, dtype: torch.dtype) -> dict[str, Graph]:
    """Return every part of a bundle with the dynamic axes the policy allows.

    Args:
        config: sizes of the network.
        policy: says how long a prompt may be.
        dtype: of the weights.
    """
    with torch.device("meta"):
        return _graphs(config, policy, dtype)


def _graphs(config: ModelConfig, policy: PolicyConfig, dtype: torch.dtype) -> dict[str, Graph]:
    # long: a table of the four graphs with their inputs, outputs and free axes.
    N, D, S = config.num_patches, config.hidden_size, config.image_size
    channels = 3 * len(config.towers) * config.num_cameras
    longest = policy.max_prompt_tokens - 1  # BOS is not among the prompt tokens
    M, K = max(2, longest // 2), max(2, N // 2)
    prompt_axis = {1: Dim("prompt", min=1, max=longest)}
    patches, prompt = torch.empty(1, N, D, dtype=dtype), torch.empty(1, M, D, dtype=dtype)
    length = torch.empty(1, dtype=torch.int64)
    proprio = torch.empty(1, config.proprio_dim)
    model = LightVla(config).to(dtype)
    body = LightVla(_without_vocabulary(config)).to(dtype)
    special_rows = (config.bos_id, config.stop_id, config.action_prefix_id)
    return {
        "prompt": Graph(
            module=_Prompt(model),
            inputs={"input_ids": torch.empty(1, M + 1, dtype=torch.int64)},
            dynamic={"input_ids": {1: Dim("ids", min=2, max=longest + 1)}},
            outputs=("prompt_tokens", "prompt_keys"),
        ),
        "vision": Graph(
            module=_Vision(model),
            inputs={"pixel_values": torch.empty(1, channels, S, S)},
            dynamic={},
            outputs=("patches",),
        ),
        "pruner": Graph(
            module=_Pruner(body),
            inputs={
                "patches": patches,
                "prompt_keys": prompt.float(),
                "prompt_length": length,
                "proprio": proprio,
            },
            dynamic={"prompt_keys": prompt_axis},
            outputs=("order", "count"),
            embedding_rows=special_rows,
        ),
        "decoder": Graph(
            module=_Decoder(body),
            inputs={
                "patches": patches,
                "retained_indices": torch.empty(1, K, dtype=torch.int64),
                # Its own: the tracer takes two inputs that are one tensor for one.
                "retained_count": torch.empty(1, dtype=torch.int64),
                "prompt_tokens": prompt,
                "prompt_length": length,
                "proprio": proprio,
            },
            dynamic={"retained_indices": {1: Dim("retained", min=1, max=N)}, "prompt_tokens": prompt_axis},
            outputs=("normalized_actions",),
            embedding_rows=special_rows,
        ),
    }


def _without_vocabulary(config: ModelConfig) -> ModelConfig:
    """Return the sizes of a network whose embedding table holds only the three special rows.

    The exporter would otherwise write the whole table into every part that reads a row of it.
    """
    return replace(config, vocab_size=3, bos_id=0, stop_id=1, action_prefix_id=2)
