"""The two small networks beside the decoder: proprio in, actions out (spec §2.3, §3.8)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightvla_ros.model.config import ModelConfig


class ProprioProjector(nn.Module):
    """Two-layer GELU MLP from the state vector to one token."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.proprio_dim, config.hidden_size)
        self.fc2 = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, proprio: Tensor) -> Tensor:
        """Project normalised [B, P] to [B, D]."""
        return self.fc2(F.gelu(self.fc1(proprio)))


class _ResidualBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.ffn = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return x + self.ffn(x)


class _MlpResNet(nn.Module):
    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        D, joined = config.hidden_size, config.action_dim * config.hidden_size
        self.layer_norm1 = nn.LayerNorm(joined)
        self.fc1 = nn.Linear(joined, D)
        self.mlp_resnet_blocks = nn.ModuleList(_ResidualBlock(D) for _ in range(2))
        self.layer_norm2 = nn.LayerNorm(D)
        self.fc2 = nn.Linear(D, config.action_dim)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.fc1(self.layer_norm1(x)))
        for block in self.mlp_resnet_blocks:
            x = block(x)
        return self.fc2(self.layer_norm2(x))


class L1RegressionHead(nn.Module):
    """Regress a chunk from the decoder's action rows; no output activation, no clipping."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.chunk_size = config.chunk_size
        self.model = _MlpResNet(config)

    def forward(self, action_hidden: Tensor) -> Tensor:
        """Map [B, chunk_size * action_dim, D] to [B, chunk_size, action_dim] normalised actions.

        Step t reads rows `action_dim * t` to `action_dim * (t + 1) - 1`, concatenated.
        """
        return self.model(action_hidden.unflatten(1, (self.chunk_size, -1)).flatten(2))
