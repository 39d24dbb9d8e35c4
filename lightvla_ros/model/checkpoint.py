"""Read and write checkpoint directories in the published layout (spec §6).

Weights are loaded tensor by tensor into a model built without memory of its own, so the peak is the
model plus one tensor. Nothing in a checkpoint directory is ever executed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from lightvla_ros.core.errors import CheckpointError
from lightvla_ros.model.config import ModelConfig, VisionTowerConfig, read_json
from lightvla_ros.model.lightvla import LightVla

_HEADS = ("action_head", "proprio_projector")
_MAX_NAMED = 8

Shapes = dict[str, tuple[int, ...]]


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
    directory = Path(directory)
    if not directory.is_dir():
        raise CheckpointError(
            str(directory), got="no such directory", expected="a checkpoint directory", fix="check the path"
        )
    config = _with_stored_rope_precision(ModelConfig.from_directory(directory), directory)
    with torch.device("meta"):
        model = LightVla(config, read_statistics(directory))
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    optional = _unused_shapes(config)
    loaded: dict[str, Tensor] = {}
    for name, tensor in _read_tensors(directory):
        _check_tensor(name, tensor, expected, optional)
        if name in expected:
            loaded[name] = tensor.to(device=device, dtype=dtype)
    missing = sorted(expected.keys() - loaded.keys())
    if missing:
        raise CheckpointError(
            f"weights in {directory}",
            got=f"no {_some(missing)}",
            expected=f"{len(expected)} tensors",
            fix="fetch it again",
        )
    model.load_state_dict(loaded, assign=True)
    return model.eval()


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
    heads: dict[str, dict[str, Tensor]] = {name: {} for name in _HEADS}
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
    for file, content in _descriptions(model, extras or {}).items():
        (directory / file).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def published_shapes(config: ModelConfig) -> Shapes:
    """Every tensor of a published checkpoint's safetensors files, those we never load included."""
    with torch.device("meta"):
        state = LightVla(config).state_dict()
    used = {name: tuple(t.shape) for name, t in state.items() if not name.startswith(_HEADS)}
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


def _read_tensors(directory: Path) -> Iterator[tuple[str, Tensor]]:
    yield from _read_weights(directory)
    for head in _HEADS:
        yield from _read_head(directory, head)


def _read_weights(directory: Path, only: str | None = None) -> Iterator[tuple[str, Tensor]]:
    for path in _weight_files(directory):
        try:
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118 (safe_open is not a mapping)
                    if only in (None, name):
                        yield name, file.get_tensor(name)
        except (SafetensorError, OSError) as e:
            raise CheckpointError(
                str(path), got=str(e), expected="a whole safetensors file", fix="fetch it again"
            ) from e


def _with_stored_rope_precision(config: ModelConfig, directory: Path) -> ModelConfig:
    """Round the rotary frequencies as a cast of the whole reference model to float16 does (docs/adr/0005)."""
    if "rope_frequency_dtype" in read_json(directory / "lightvla.json", optional=True).get("model", {}):
        return config
    stored = {tensor.dtype for _, tensor in _read_weights(directory, only="language_model.model.norm.weight")}
    return replace(config, rope_frequency_dtype="float16") if torch.float16 in stored else config


def _weight_files(directory: Path) -> list[Path]:
    index = directory / "model.safetensors.index.json"
    if index.is_file():
        files = sorted({directory / name for name in read_json(index).get("weight_map", {}).values()})
    else:
        files = [directory / "model.safetensors"]
    missing = [path.name for path in files if not path.is_file()]
    if missing or not files:
        raise CheckpointError(
            f"weight files in {directory}",
            got=f"no {_some(missing) if missing else 'entry in the index'}",
            expected="model.safetensors, or every shard its index names",
            fix="fetch the missing files",
        )
    return files


def _read_head(directory: Path, prefix: str) -> Iterator[tuple[str, Tensor]]:
    matches = sorted(p for p in directory.glob(f"{prefix}*.pt") if "checkpoint" in p.name)
    if len(matches) != 1:
        raise CheckpointError(
            f"{prefix}*checkpoint*.pt in {directory}",
            got=[p.name for p in matches] or "no file",
            expected="exactly one file",
            fix="fetch it, or move the others away",
        )
    try:
        state = torch.load(matches[0], map_location="cpu", weights_only=True)
    except Exception as e:
        raise CheckpointError(
            str(matches[0]),
            got=f"{type(e).__name__}: {str(e).splitlines()[0]}",
            expected="a weights-only torch pickle",
            fix="fetch it again",
        ) from e
    for name, tensor in state.items():
        yield f"{prefix}.{name.removeprefix('module.')}", tensor


def _check_tensor(name: str, tensor: Tensor, expected: Shapes, optional: Shapes) -> None:
    shape = expected.get(name, optional.get(name))
    if shape is None:
        raise CheckpointError(
            f"tensor '{name}'",
            got="not part of this model",
            expected="only the keys of spec §6.2",
            fix="check that config.json belongs to these weights",
        )
    if tuple(tensor.shape) != shape:
        raise CheckpointError(
            f"tensor '{name}'",
            got=tuple(tensor.shape),
            expected=str(shape),
            fix="check that config.json belongs to these weights",
        )
    if name in expected and not torch.isfinite(tensor).all():
        raise CheckpointError(
            f"tensor '{name}'", got="NaN or infinite values", expected="finite weights", fix="fetch it again"
        )


def _descriptions(model: LightVla, extras: Mapping[str, Any]) -> dict[str, Any]:
    """Return the JSON files that let `ModelConfig.from_directory` build the same model."""
    config = model.config
    towers = {
        name: {
            field: getattr(tower, field)
            for field in (
                "embed_dim",
                "depth",
                "num_heads",
                "mlp_dim",
                "num_prefix_tokens",
                "layer_scale",
                "normalization",
            )
        }
        for name, tower in config.towers.items()
    }
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
        "vision.json": towers,
        "lightvla.json": {"model": {name: getattr(config, name) for name in own}, **extras},
        "dataset_statistics.json": model.statistics,
    }


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:_MAX_NAMED])
    return shown if len(names) <= _MAX_NAMED else f"{shown} and {len(names) - _MAX_NAMED} more"
