"""The embedded default policy's own sizes and vocabulary: LightVLA small enough to train on a laptop."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightvla_ros.learn.demonstrations import DemonstrationMeta
from lightvla_ros.model import LightVla, ModelConfig, VisionTowerConfig

UNKNOWN, BOS, STOP, ACTION_PREFIX = "<unk>", "<s>", "</s>", "▁"
PROMPT_TEMPLATE = "{instruction}"
PATCHES_PER_SIDE = 8


def vocabulary(instructions: Sequence[str]) -> dict[str, int]:
    """Number the special tokens (Llama's ids where it has them) and then every word, sorted."""
    words = sorted({word for text in instructions for word in re.findall(r"\w+|[^\w\s]", text.lower())})
    return {token: i for i, token in enumerate([UNKNOWN, BOS, STOP, ACTION_PREFIX, *words])}


def tokenizer_json(vocab: Mapping[str, int]) -> str:
    """Return a word-level `tokenizer.json` that lower-cases and prepends BOS."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    tokenizer = Tokenizer(models.WordLevel(dict(vocab), unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, vocab[BOS])]
    )
    text: str = tokenizer.to_str()
    return text


def mini_config(meta: DemonstrationMeta, vocab_size: int) -> ModelConfig:
    """Return the mini model's sizes: one tower, 8x8 patches a camera, the full model's structure."""
    return ModelConfig(
        towers={"featurizer": VisionTowerConfig(embed_dim=192, depth=4, num_heads=3, mlp_dim=576)},
        image_size=meta.image_size,
        patch_size=meta.image_size // PATCHES_PER_SIDE,
        num_cameras=len(meta.cameras),
        hidden_size=192,
        intermediate_size=512,
        num_layers=5,
        num_heads=3,
        vocab_size=vocab_size,
        action_dim=len(meta.action_names),
        proprio_dim=meta.proprio_dim,
        action_prefix_id=3,
        # Trained and read on the same rows (spec §3.7).
        action_row_offset=0,
    )


def initialize(model: LightVla) -> None:
    """Start every token of a fresh model at unit scale and with its place in it.

    PyTorch's defaults leave visual tokens ten times smaller than what the first layers add to them, and
    positions smaller still; from there a short training never comes to look at the picture.
    """
    nn.init.normal_(model.language_model.model.embed_tokens.weight)
    projector, proprio = model.projector, model.proprio_projector
    for layer in (projector.fc1, projector.fc2, projector.fc3, proprio.fc1, proprio.fc2):
        nn.init.kaiming_normal_(layer.weight)
    places = _sine_cosine_places(model.config.grid_size, model.config.vision_dim)
    for tower in model.vision_backbone.towers():
        tower.pos_embed.data.copy_(places)


def _sine_cosine_places(side: int, width: int) -> Tensor:
    """Return [1, side * side, width] sine-cosine embeddings of a grid: half rows, half columns."""
    frequency = 1.0 / 100.0 ** (torch.arange(width // 4) / (width // 4))
    angle = torch.arange(side)[:, None] * frequency  # [side, width / 4]
    line = torch.cat([angle.sin(), angle.cos()], dim=-1)  # [side, width / 2]
    rows, columns = line[:, None].expand(-1, side, -1), line[None].expand(side, -1, -1)
    return torch.cat([rows, columns], dim=-1).reshape(1, side * side, width)


def policy_section(meta: DemonstrationMeta) -> dict[str, Any]:
    """Return the "policy" section of `lightvla.json`: how observations become this model's inputs."""
    return {
        "camera_names": list(meta.cameras),
        "normalizations": ["siglip"],
        # The simulated cameras are not compressed, so there is no JPEG loss to reproduce.
        "jpeg": False,
        "prompt_template": PROMPT_TEMPLATE,
        "max_prompt_tokens": 32,
        "action_names": list(meta.action_names),
        "step_period_s": meta.step_period_s,
    }
