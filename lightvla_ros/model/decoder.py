"""The decoder: a Llama whose attention is bidirectional and whose positions are explicit (spec §3.4-3.6).

Bidirectional attention with explicit position ids does not care about the order of its rows, so the
sequence can be laid out for static slices (see `sequence.py`). The last layer computes only the rows
somebody reads.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from lightvla_ros.model.attention import attend
from lightvla_ros.model.config import ModelConfig


class RMSNorm(nn.Module):
    """Root-mean-square norm with a weight, computed in float32."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last axis; same shape and dtype."""
        y = x.float()
        # Written as ONNX Runtime recognises it: a product with rsqrt would stay four operators.
        y = y / torch.sqrt(y.square().mean(-1, keepdim=True) + self.eps)
        return self.weight * y.to(x.dtype)


def rotary_angles(config: ModelConfig, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return cos and sin [B, 1, L, head_dim] for int64 positions [B, L], computed in float32."""
    head_dim = config.hidden_size // config.num_heads
    exponent = torch.arange(0, head_dim, 2, device=positions.device, dtype=torch.float32) / head_dim
    frequencies = 1.0 / config.rope_theta**exponent
    frequencies = frequencies.to(getattr(torch, config.rope_frequency_dtype)).float()
    angles = positions[:, :, None].float() * frequencies  # [B, L, head_dim / 2]
    angles = torch.cat([angles, angles], dim=-1)[:, None]
    return angles.cos().to(dtype), angles.sin().to(dtype)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn heads [B, heads, L, head_dim] by angles [B, 1, L, head_dim]."""
    left, right = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-right, left], dim=-1) * sin


class Attention(nn.Module):
    """Rotary self-attention of a decoder layer."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        D = config.hidden_size
        self.num_heads, self.head_dim = config.num_heads, D // config.num_heads
        self.q_proj = nn.Linear(D, D, bias=False)
        self.k_proj = nn.Linear(D, D, bias=False)
        self.v_proj = nn.Linear(D, D, bias=False)
        self.o_proj = nn.Linear(D, D, bias=False)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, key_bias: Tensor | None, rows: slice) -> Tensor:
        """Let `rows` of [B, L, D] attend to all: [B, len(rows), D]; angles as `rotary_angles` gives them."""
        q = rotate(self._heads(self.q_proj(x[:, rows])), cos[:, :, rows], sin[:, :, rows])
        k = rotate(self._heads(self.k_proj(x)), cos, sin)
        v = self._heads(self.v_proj(x))
        y = attend(q, k, v, key_bias)
        return self.o_proj(y.transpose(1, 2).flatten(2))

    def weights(self, x: Tensor, cos: Tensor, sin: Tensor, rows: slice) -> Tensor:
        """Return what `rows` attend to: probabilities [B, heads, len(rows), L], without padding."""
        q = rotate(self._heads(self.q_proj(x[:, rows])), cos[:, :, rows], sin[:, :, rows])
        k = rotate(self._heads(self.k_proj(x)), cos, sin)
        return (q @ k.transpose(-1, -2) * self.head_dim**-0.5).softmax(-1)

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, self.head_dim)).transpose(1, 2)  # [B, heads, L, head_dim]


class Mlp(nn.Module):
    """Gated MLP of a decoder layer."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map [B, L, D] to the same shape."""
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class DecoderLayer(nn.Module):
    """Attention and MLP, each on normalised rows and added to them."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = Mlp(config)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, key_bias: Tensor | None, rows: slice) -> Tensor:
        """Run [B, L, D] for `rows`: [B, len(rows), D]; angles as `rotary_angles` gives them."""
        x = x[:, rows] + self.self_attn(self.input_layernorm(x), cos, sin, key_bias, rows)
        return x + self.mlp(self.post_attention_layernorm(x))


class Decoder(nn.Module):
    """Embedding table, bidirectional layers and final norm."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.num_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(self, x: Tensor, positions: Tensor, key_mask: Tensor | None, rows: slice) -> Tensor:
        """Run all layers; the last one only for `rows`.

        Args:
            x: [B, L, D] token embeddings in any order.
            positions: int64 [B, L] position ids, those before pruning (spec §3.5).
            key_mask: bool [B, L], False for padding; None when every row is real.
            rows: rows of the result somebody needs; `slice(None)` for all.

        Returns:
            [B, len(rows), D] after the final norm.
        """
        cos, sin = rotary_angles(self.config, positions, x.dtype)
        key_bias = None if key_mask is None else _hiding_bias(key_mask, x.dtype)
        everything = slice(None)
        for layer in self.layers[:-1]:
            x = layer(x, cos, sin, key_bias, everything)
        return self.norm(self.layers[-1](x, cos, sin, key_bias, rows))

    def first_keys(self, x: Tensor) -> Tensor:
        """Return the keys of the first layer's attention, heads side by side, not yet rotated.

        Args:
            x: [B, L, D].

        Returns:
            [B, L, D], computed in float32 whatever the weights' dtype, because they decide tokens.
        """
        layer = cast(DecoderLayer, self.layers[0])
        k_proj = layer.self_attn.k_proj
        weights = {name: weight.float() for name, weight in k_proj.named_parameters()}
        return cast(Tensor, functional_call(k_proj, weights, layer.input_layernorm(x.float())))


def _hiding_bias(key_mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Turn a bool [B, L] mask into what attention adds to its scores, [B, 1, 1, L], once for all layers."""
    bias = torch.zeros(key_mask.shape, dtype=dtype, device=key_mask.device)
    return bias.masked_fill(~key_mask, float("-inf"))[:, None, None]


class LanguageModel(nn.Module):
    """Holds the decoder under the name it has in published checkpoints; there is no `lm_head`."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.model = Decoder(config)
