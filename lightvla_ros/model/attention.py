"""Scaled dot-product attention as all layers use it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# Scores that are kept for the backward pass, of a layer; more of them cost more memory than time is worth.
_MAX_SCORES = 5_000_000


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
    """Attend without causal mask.

    Args:
        q: [B, heads, Q, head_dim].
        k: [B, heads, L, head_dim].
        v: [B, heads, L, head_dim].
        bias: added to the scores, broadcast to [B, heads, Q, L]; None for nothing.

    Returns:
        [B, heads, Q, head_dim].
    """
    scores = q.shape[:-1].numel() * k.shape[-2]
    trained = torch.is_grad_enabled() and q.requires_grad
    if not trained or q.device.type != "cpu" or scores > _MAX_SCORES:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    # Trained on a CPU in bfloat16, the fused kernel's backward pass takes three times as long as this.
    score = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    if bias is not None:
        score = score + bias
    return score.float().softmax(-1).to(v.dtype) @ v
