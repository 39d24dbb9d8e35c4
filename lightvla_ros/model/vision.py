"""Vision side: pixels -> projected visual tokens (spec §2).

Built exactly as deep as the features need: the towers stop after block `depth - 2`, so their last
block, final norm and pooling head, which the reference computes and discards, do not exist here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightvla_ros.model.attention import attend
from lightvla_ros.model.config import ModelConfig, VisionTowerConfig

_LAYER_NORM_EPS = 1e-6


class _Attention(nn.Module):
    def __init__(self, config: VisionTowerConfig) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.qkv = nn.Linear(config.embed_dim, 3 * config.embed_dim)
        self.proj = nn.Linear(config.embed_dim, config.embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        B, T, C = x.shape
        qkv = self.qkv(x).view(B, T, 3, self.num_heads, C // self.num_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each [B, heads, T, head_dim]
        y = attend(q, k, v)
        return self.proj(y.transpose(1, 2).reshape(B, T, C))


class _Mlp(nn.Module):
    def __init__(self, config: VisionTowerConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.embed_dim, config.mlp_dim)
        self.fc2 = nn.Linear(config.mlp_dim, config.embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))  # exact (erf) GELU


class _LayerScale(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale_factor = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale_factor


class Block(nn.Module):
    """Attention and MLP of a vision transformer, each on normalised rows and added to them."""

    def __init__(self, config: VisionTowerConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.embed_dim, eps=_LAYER_NORM_EPS)
        self.attn = _Attention(config)
        self.ls1 = _LayerScale(config.embed_dim) if config.layer_scale else nn.Identity()
        self.norm2 = nn.LayerNorm(config.embed_dim, eps=_LAYER_NORM_EPS)
        self.mlp = _Mlp(config)
        self.ls2 = _LayerScale(config.embed_dim) if config.layer_scale else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, T, C] to the same shape."""
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


class PatchEmbed(nn.Module):
    """Cut images into patches, one token each."""

    def __init__(self, width: int, patch_size: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, kernel_size=patch_size, stride=patch_size)

    def forward(self, images: Tensor) -> Tensor:
        """Embed [B, 3, S, S] as [B, P, C], patches row by row."""
        # Left as a view, every sum and norm of the tower would read columns.
        return self.proj(images).flatten(2).transpose(1, 2).contiguous()


class VisionTower(nn.Module):
    """One vision transformer up to the block whose output is the feature (spec §2.1)."""

    def __init__(self, config: VisionTowerConfig, *, image_size: int, patch_size: int) -> None:
        super().__init__()
        width, num_patches = config.embed_dim, (image_size // patch_size) ** 2
        self.num_prefix_tokens = config.num_prefix_tokens
        self.patch_embed = PatchEmbed(width, patch_size)
        self.pos_embed = nn.Parameter(torch.randn(1, num_patches, width) * 0.02)
        if config.num_prefix_tokens:
            self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
            self.reg_token = nn.Parameter(torch.zeros(1, config.num_prefix_tokens - 1, width))
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth - 1))

    def forward(self, images: Tensor) -> Tensor:
        """Encode [B, 3, S, S] normalised images to [B, P, embed_dim] patch features."""
        x = self.patch_embed(images) + self.pos_embed  # positions belong to patches only
        if self.num_prefix_tokens:
            prefix = torch.cat([self.cls_token, self.reg_token], dim=1).expand(x.shape[0], -1, -1)
            x = torch.cat([prefix, x], dim=1)
        for block in self.blocks:
            x = block(x)
        return x[:, self.num_prefix_tokens :]


class VisionBackbone(nn.Module):
    """All towers on all cameras; features side by side, cameras one after the other."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.num_cameras = config.num_cameras
        self.tower_names = tuple(config.towers)
        for name, tower in config.towers.items():
            self.add_module(
                name, VisionTower(tower, image_size=config.image_size, patch_size=config.patch_size)
            )

    def towers(self) -> list[VisionTower]:
        """Return the towers in channel order."""
        return [cast(VisionTower, self.get_submodule(name)) for name in self.tower_names]

    def forward(self, pixel_values: Tensor) -> Tensor:
        """Encode [B, 3 * towers * cameras, S, S] pixels to [B, N, vision_dim] features.

        Channel order is camera-major: each camera's three channels per tower, in tower order.
        """
        B, _, S, _ = pixel_values.shape
        # One call per tower for every camera of the batch: [B * cameras, 3 * towers, S, S].
        per_camera = pixel_values.reshape(B * self.num_cameras, 3 * len(self.tower_names), S, S)
        inputs = per_camera.split(3, dim=1)
        features = torch.cat(self.tower_features(inputs), dim=-1)
        return features.reshape(B, -1, features.shape[-1])  # [B, cameras * P, vision_dim]

    def tower_features(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Encode one [B, 3, S, S] per tower to one [B, P, embed_dim] each."""
        return [tower(x) for tower, x in zip(self.towers(), inputs, strict=True)]


class Projector(nn.Module):
    """Three-layer GELU MLP from vision features to decoder width (spec §2.2)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.vision_dim, 4 * config.vision_dim)
        self.fc2 = nn.Linear(4 * config.vision_dim, config.hidden_size)
        self.fc3 = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, features: Tensor) -> Tensor:
        """Project [B, N, vision_dim] to [B, N, D]."""
        return self.fc3(F.gelu(self.fc2(F.gelu(self.fc1(features)))))
