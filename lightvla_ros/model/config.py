"""Sizes of a LightVLA model, read from a checkpoint directory.

The published layout (spec §6.3) fixes everything by `config.json`; `vision.json` overrides the vision
towers' sizes and `lightvla.json` whatever else this project's own, smaller models change.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from lightvla_ros.core.errors import CheckpointError


@dataclass(frozen=True, slots=True, kw_only=True)
class VisionTowerConfig:
    """One vision transformer (spec §2.1).

    Attributes:
        embed_dim: token width.
        depth: blocks of the published tower; the features are those after block `depth - 2` (zero-based),
            so `depth - 1` blocks run and the last one is never built.
        num_heads: attention heads.
        mlp_dim: hidden width of a block's MLP.
        num_prefix_tokens: CLS plus register tokens, prepended after the position embedding.
        layer_scale: whether both residual branches are scaled per channel.
        normalization: pixel statistics of its input, "dinov2" or "siglip" (spec §1.3).
    """

    embed_dim: int
    depth: int
    num_heads: int
    mlp_dim: int
    num_prefix_tokens: int = 0
    layer_scale: bool = False
    normalization: str = "siglip"


DINOV2_LARGE = VisionTowerConfig(
    embed_dim=1024,
    depth=24,
    num_heads=16,
    mlp_dim=4096,
    num_prefix_tokens=5,
    layer_scale=True,
    normalization="dinov2",
)
SIGLIP_SO400M = VisionTowerConfig(embed_dim=1152, depth=27, num_heads=16, mlp_dim=4304)

# MLP width over token width, truncated to an integer as the published towers do.
_MLP_RATIO = {"dinov2": 4.0, "siglip": 3.7362}

# `text_config` holds only what differs from Llama-2-7B, so every field is optional.
_LLAMA_FIELDS = {
    "hidden_size": "hidden_size",
    "intermediate_size": "intermediate_size",
    "num_hidden_layers": "num_layers",
    "num_attention_heads": "num_heads",
    "vocab_size": "vocab_size",
    "rms_norm_eps": "rms_norm_eps",
    "rope_theta": "rope_theta",
}
_CORRECT = "correct config.json, vision.json or lightvla.json of the checkpoint"

PRUNER_KINDS = ("task_queries", "vision_queries", "decoder_queries")
INITIALIZATIONS = ("normal", "orthogonal")


@dataclass(frozen=True, slots=True, kw_only=True)
class PrunerConfig:
    """What asks for visual tokens. Learned queries are a design of this project (docs/adr/0012).

    Attributes:
        kind: "task_queries", LightVLA: a query per visual token, made of the task tokens, without weights
            (spec §4). "vision_queries" and "decoder_queries", after LightVLA*: learned queries. Their keys
            are the projector's output, or the keys of the first decoder layer's attention.
        num_queries: learned queries m, so at most m tokens are retained; None is a quarter of the visual
            tokens.
        initialization: of learned queries, "normal" (every number on its own) or "orthogonal".
    """

    kind: str = "task_queries"
    num_queries: int | None = None
    initialization: str = "normal"

    def __post_init__(self) -> None:
        """Refuse what no pruner can be."""
        count = self.num_queries
        rules = {
            "kind": (self.kind in PRUNER_KINDS, f"one of {list(PRUNER_KINDS)}"),
            "num_queries": (
                count is None or (type(count) is int and count > 0 and self.is_learned),
                "a whole number from 1 on for learned queries, else none",
            ),
            "initialization": (self.initialization in INITIALIZATIONS, f"one of {list(INITIALIZATIONS)}"),
        }
        for name, (holds, expected) in rules.items():
            if not holds:
                raise CheckpointError(
                    f"pruner '{name}'",
                    got=repr(getattr(self, name)),
                    expected=expected,
                    fix="correct the pruner of lightvla.json, or the options of training",
                )

    @property
    def is_learned(self) -> bool:
        """Whether the queries are weights."""
        return self.kind != "task_queries"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """Every size of the model; the defaults are the published 7B LIBERO models.

    Attributes:
        towers: state-dict name -> vision tower, in channel order of `pixel_values`.
        image_size: pixels per side of a preprocessed image.
        patch_size: pixels per side of a patch.
        num_cameras: images per observation.
        hidden_size: decoder width D.
        intermediate_size: decoder MLP width.
        num_layers: decoder layers.
        num_heads: decoder attention heads.
        vocab_size: rows of the embedding table.
        rms_norm_eps: epsilon of the decoder's RMSNorm (1e-6 is the value in force, spec §3.4).
        rope_theta: base of the rotary frequencies.
        rope_frequency_dtype: precision the rotary frequencies are rounded to before they are used;
            "float16" for checkpoints that were cast to half as a whole (docs/adr/0005).
        chunk_size: actions per chunk.
        action_dim: numbers per action.
        proprio_dim: length of the state vector.
        bos_id: first token of every prompt.
        stop_id: token after the action slots.
        action_prefix_id: token between the prompt and the action slots (Llama's lone "▁").
        action_row_offset: first hidden row read by the head, counted from the action prefix: 2 is the
            slice [-56:] of the released inference code, 0 the slice [-58:-2] of training (spec §3.7).
        pruner: what asks for visual tokens.
    """

    towers: Mapping[str, VisionTowerConfig] = field(
        default_factory=lambda: {"featurizer": DINOV2_LARGE, "fused_featurizer": SIGLIP_SO400M}
    )
    image_size: int = 224
    patch_size: int = 14
    num_cameras: int = 2
    hidden_size: int = 4096
    intermediate_size: int = 11008
    num_layers: int = 32
    num_heads: int = 32
    vocab_size: int = 32064
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    rope_frequency_dtype: str = "float32"
    chunk_size: int = 8
    action_dim: int = 7
    proprio_dim: int = 8
    bos_id: int = 1
    stop_id: int = 2
    action_prefix_id: int = 29871
    action_row_offset: int = 2
    pruner: PrunerConfig = field(default_factory=PrunerConfig)

    def __post_init__(self) -> None:
        """Refuse sizes that cannot form a model."""
        rules = {
            "image_size": self.image_size % self.patch_size == 0,
            "hidden_size": self.hidden_size % self.num_heads == 0,
            "action_row_offset": self.action_row_offset in (0, 1, 2),
            "rope_frequency_dtype": self.rope_frequency_dtype in ("float32", "float16", "bfloat16"),
            "towers": bool(self.towers),
            **{f"towers.{k}.embed_dim": t.embed_dim % t.num_heads == 0 for k, t in self.towers.items()},
        }
        for name, holds in rules.items():
            if not holds:
                raise CheckpointError(
                    f"model size '{name}'",
                    got=getattr(self, name, self.towers),
                    expected="image_size a multiple of patch_size, widths multiples of heads, offset 0..2",
                    fix=_CORRECT,
                )

    @property
    def grid_size(self) -> int:
        """Patches per side of one image."""
        return self.image_size // self.patch_size

    @property
    def num_patches(self) -> int:
        """Visual tokens N over all cameras."""
        return self.num_cameras * self.grid_size**2

    @property
    def num_queries(self) -> int:
        """Queries of the pruner, each of which chooses one visual token."""
        if not self.pruner.is_learned:
            return self.num_patches
        return self.pruner.num_queries or max(1, self.num_patches // 4)

    @property
    def vision_dim(self) -> int:
        """Width of a patch before the projector: the towers' features side by side."""
        return sum(tower.embed_dim for tower in self.towers.values())

    @property
    def num_action_rows(self) -> int:
        """Hidden rows the action head reads."""
        return self.chunk_size * self.action_dim

    @classmethod
    def from_directory(cls, directory: Path) -> ModelConfig:
        """Read `config.json` and, where present, `vision.json` and `lightvla.json`.

        Raises:
            CheckpointError: a file is missing, not JSON, or describes a model this package cannot build.
        """
        try:
            return cls._read(directory)
        except (KeyError, TypeError, ValueError, AttributeError, ZeroDivisionError) as e:
            got, expected = f"{type(e).__name__}: {e}", "the fields of the published layout (spec §6.3)"
            raise CheckpointError(f"sizes in {directory}", got=got, expected=expected, fix=_CORRECT) from e

    @classmethod
    def _read(cls, directory: Path) -> ModelConfig:
        published = read_json(directory / "config.json")
        text = published.get("text_config", {})
        config = cls(
            towers=_towers(published, read_json(directory / "vision.json", optional=True)),
            **{ours: text[theirs] for theirs, ours in _LLAMA_FIELDS.items() if theirs in text},
        )
        kv_heads = text.get("num_key_value_heads", config.num_heads)
        if kv_heads != config.num_heads:
            raise CheckpointError(
                "config.json: text_config.num_key_value_heads",
                got=kv_heads,
                expected=f"{config.num_heads}, the number of attention heads",
                fix="grouped-query decoders are not LightVLA models; check the directory",
            )
        return config._overridden(read_json(directory / "lightvla.json", optional=True).get("model", {}))

    def _overridden(self, overrides: Mapping[str, Any]) -> ModelConfig:
        _check_known("model", overrides, {f.name for f in fields(self)} - {"towers"})
        pruner = overrides.get("pruner", {})
        _check_known("model.pruner", pruner, {f.name for f in fields(PrunerConfig)})
        return replace(self, **{**overrides, "pruner": PrunerConfig(**pruner)})


def _check_known(section: str, content: Any, known: set[str]) -> None:
    if unknown := sorted(set(content) - known) if isinstance(content, Mapping) else [content]:
        expected = f"fields among {sorted(known)}"
        raise CheckpointError(f"lightvla.json: {section}", got=unknown, expected=expected, fix="remove them")


def read_json(path: Path, *, optional: bool = False) -> dict[str, Any]:
    """Read a JSON object; a missing optional file is an empty one.

    Raises:
        CheckpointError: the file is missing or is not a JSON object.
    """
    if optional and not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise _unreadable(path, "no such file", "check the path") from None
    except ValueError as e:
        raise _unreadable(path, f"invalid JSON ({e})", "fetch it again") from e
    if not isinstance(content, dict):
        raise _unreadable(path, type(content).__name__, "fetch it again")
    return content


def _unreadable(path: Path, got: str, fix: str) -> CheckpointError:
    return CheckpointError(str(path), got=got, expected="a JSON object of a checkpoint", fix=fix)


def _towers(published: Mapping[str, Any], sizes: Mapping[str, Any]) -> dict[str, VisionTowerConfig]:
    """Choose the towers by `vision_backbone_id`, then apply `vision.json` to their sizes."""
    backbone = published.get("vision_backbone_id")
    if backbone == "dinosiglip-vit-so-224px":
        towers = {"featurizer": DINOV2_LARGE, "fused_featurizer": SIGLIP_SO400M}
    elif backbone == "siglip-vit-so400m":
        towers = {"featurizer": SIGLIP_SO400M}
    else:
        expected = "'dinosiglip-vit-so-224px' or 'siglip-vit-so400m'"
        fix = "point to a LightVLA or OpenVLA-OFT checkpoint directory"
        raise CheckpointError(
            "config.json: vision_backbone_id", got=repr(backbone), expected=expected, fix=fix
        )
    return {name: _resized(tower, sizes.get(name, {})) for name, tower in towers.items()}


def _resized(tower: VisionTowerConfig, sizes: Mapping[str, Any]) -> VisionTowerConfig:
    if not sizes:
        return tower
    mlp_dim = int(sizes["embed_dim"] * _MLP_RATIO[tower.normalization])
    return replace(tower, **{"mlp_dim": mlp_dim, **sizes})
