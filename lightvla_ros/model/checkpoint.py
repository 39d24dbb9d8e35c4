"""Read and write checkpoint directories in the published layout (spec §6).

Nothing in a checkpoint directory is ever executed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from lightvla_ros.core.errors import CheckpointError
from lightvla_ros.model.config import ModelConfig, VisionTowerConfig, read_json
from lightvla_ros.model.lightvla import LightVla
from lightvla_ros.model.stored_model import HEADS, CheckpointWeights, Shapes, StoredModel, model_shapes


def load_checkpoint(
    directory: str | Path, *, dtype: torch.dtype = torch.float32, device: str = "cpu"
) -> LightVla:
    """Load a checkpoint directory of the published layout.

    Args:
        directory: holds `config.json`, safetensors weights, `action_head*checkpoint*.pt`,
            `proprio_projector*checkpoint*.pt` and `dataset_statistics.json`; no tokenizer is needed.
        dtype: dtype of every weight.
        device: where the model goes.

    Returns:
        The model in evaluation mode, with `statistics` from `dataset_statistics.json` (else `config.json`).

    Raises:
        CheckpointError: something is missing, unexpected, of the wrong shape, corrupt, or not finite.
    """
    return open_checkpoint(directory).load(dtype=dtype, device=device)


def open_checkpoint(directory: str | Path) -> StoredModel:
    """Like `load_checkpoint`, but the weights stay in their files until they are asked for.

    Raises:
        CheckpointError: something is missing, unexpected, of the wrong shape or corrupt. A weight that is
            not finite raises when it is read.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise CheckpointError(
            str(directory), got="no such directory", expected="a checkpoint directory", fix="check the path"
        )
    config, statistics = ModelConfig.from_directory(directory), read_statistics(directory)
    weights = CheckpointWeights(directory, model_shapes(config), _unused_shapes(config))
    config = _with_stored_rope_precision(config, directory, weights)
    return StoredModel(config=config, weights=weights, statistics=statistics)


def read_statistics(directory: Path) -> dict[str, Any]:
    """Read the normalisation statistics; `dataset_statistics.json` wins over `config.json`."""
    statistics = read_json(directory / "dataset_statistics.json", optional=True)
    return statistics or read_json(directory / "config.json").get("norm_stats", {})


def save_checkpoint(
    model: LightVla,
    directory: Path,
    *,
    extras: Mapping[str, Any] | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Write a model in the layout `load_checkpoint` reads.

    Args:
        model: the model, with its `statistics`.
        directory: created when missing.
        extras: further sections of `lightvla.json` beside "model" (for example "policy").
        dtype: dtype of the weights on disk; None keeps the model's.
    """
    directory.mkdir(parents=True, exist_ok=True)
    heads: dict[str, dict[str, Tensor]] = {name: {} for name in HEADS}
    body: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        head, _, rest = name.partition(".")
        weight = tensor.detach().to("cpu", dtype or tensor.dtype).contiguous()
        if head in heads:
            heads[head][rest] = weight
        else:
            body[name] = weight
    save_file(body, directory / "model.safetensors", metadata={"format": "pt"})
    for name, tensors in heads.items():
        torch.save(
            {f"module.{key}": value for key, value in tensors.items()},
            directory / f"{name}--latest_checkpoint.pt",
        )
    write_descriptions(model, directory, extras)


def write_descriptions(model: LightVla, directory: Path, extras: Mapping[str, Any] | None = None) -> None:
    """Write the JSON files of a checkpoint: all of it but the weights."""
    for file, content in _descriptions(model, extras or {}).items():
        (directory / file).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def published_shapes(config: ModelConfig) -> Shapes:
    """Every tensor of a published checkpoint's safetensors files, those we never load included."""
    used = {name: shape for name, shape in model_shapes(config).items() if not name.startswith(HEADS)}
    return used | _unused_shapes(config)


def _unused_shapes(config: ModelConfig) -> Shapes:
    """Tensors of published checkpoints that no output depends on (spec §11)."""
    shapes: Shapes = {"language_model.lm_head.weight": (config.vocab_size, config.hidden_size)}
    for name, tower in config.towers.items():
        shapes |= {
            f"vision_backbone.{name}.{key}": shape for key, shape in _unused_tower_shapes(tower).items()
        }
    return shapes


def _unused_tower_shapes(tower: VisionTowerConfig) -> Shapes:
    C, H = tower.embed_dim, tower.mlp_dim
    block: Shapes = {
        "norm1.weight": (C,), "norm1.bias": (C,), "norm2.weight": (C,), "norm2.bias": (C,),
        "attn.qkv.weight": (3 * C, C), "attn.qkv.bias": (3 * C,),
        "attn.proj.weight": (C, C), "attn.proj.bias": (C,),
        "mlp.fc1.weight": (H, C), "mlp.fc1.bias": (H,), "mlp.fc2.weight": (C, H), "mlp.fc2.bias": (C,),
    }  # fmt: skip
    if tower.layer_scale:
        block |= {"ls1.scale_factor": (C,), "ls2.scale_factor": (C,)}
    shapes: Shapes = {"norm.weight": (C,), "norm.bias": (C,)}
    shapes |= {f"blocks.{tower.depth - 1}.{key}": shape for key, shape in block.items()}
    if not tower.num_prefix_tokens:
        pool: Shapes = {
            "latent": (1, 1, C), "q.weight": (C, C), "q.bias": (C,),
            "kv.weight": (2 * C, C), "kv.bias": (2 * C,),
            "proj.weight": (C, C), "proj.bias": (C,), "norm.weight": (C,), "norm.bias": (C,),
            "mlp.fc1.weight": (H, C), "mlp.fc1.bias": (H,), "mlp.fc2.weight": (C, H), "mlp.fc2.bias": (C,),
        }  # fmt: skip
        shapes |= {f"attn_pool.{key}": shape for key, shape in pool.items()}
    return shapes


def _with_stored_rope_precision(
    config: ModelConfig, directory: Path, weights: Mapping[str, Tensor]
) -> ModelConfig:
    """Round the rotary frequencies as a cast of the whole reference model to float16 does (docs/adr/0005)."""
    if "rope_frequency_dtype" in read_json(directory / "lightvla.json", optional=True).get("model", {}):
        return config
    stored = weights["language_model.model.norm.weight"].dtype
    return replace(config, rope_frequency_dtype="float16") if stored == torch.float16 else config


def _descriptions(model: LightVla, extras: Mapping[str, Any]) -> dict[str, Any]:
    """Return the JSON files that let `ModelConfig.from_directory` build the same model."""
    config = model.config
    fused = len(config.towers) > 1
    own = (
        "image_size", "patch_size", "num_cameras", "chunk_size", "action_dim", "proprio_dim",
        "bos_id", "stop_id", "action_prefix_id", "action_row_offset", "rope_frequency_dtype",
    )  # fmt: skip
    return {
        "config.json": {
            "model_type": "openvla",
            "vision_backbone_id": "dinosiglip-vit-so-224px" if fused else "siglip-vit-so400m",
            "use_fused_vision_backbone": fused,
            "text_config": {
                "model_type": "llama",
                "hidden_size": config.hidden_size,
                "intermediate_size": config.intermediate_size,
                "num_hidden_layers": config.num_layers,
                "num_attention_heads": config.num_heads,
                "vocab_size": config.vocab_size,
                "rms_norm_eps": config.rms_norm_eps,
                "rope_theta": config.rope_theta,
            },
        },
        "vision.json": {name: asdict(tower) for name, tower in config.towers.items()},
        "lightvla.json": {
            "model": {**{name: getattr(config, name) for name in own}, "pruner": asdict(config.pruner)},
            **extras,
        },
        "dataset_statistics.json": model.statistics,
    }
