"""The order of the decoder's rows: where each sits, what its position id is, and which are padding.

It differs from the reference's, which bidirectional attention with explicit positions ignores
(docs/adr/0007). Ours puts what is static first:

    row       0     1..A        A+1   A+2  A+3      then n-1      then K
    content   "▁"   A zeros     </s>  BOS  proprio  prompt 1..    retained visual tokens
    position  N+1+n N+2+n+i     N+2+n+A 0  N+1      N+1+j         1 + original index

with A = chunk_size * action_dim, N visual tokens and n prompt ids including BOS (spec §3.3). The rows
the head reads are a fixed slice, and padding, where there is any, sits at the tail.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lightvla_ros.model.config import ModelConfig

# Beside the action slots: "▁", </s>, BOS and proprio.
_SPECIAL_ROWS = 4


def position_ids(
    config: ModelConfig, visual_indices: Tensor, prompt_tokens: Tensor, prompt_mask: Tensor | None
) -> Tensor:
    """Position ids int64 [B, L]: those of the unpruned, unpadded sequence (spec §3.5)."""
    device = visual_indices.device
    B, M, N = visual_indices.shape[0], prompt_tokens.shape[1], config.num_patches
    lengths = (
        torch.full((B, 1), M, device=device) if prompt_mask is None else prompt_mask.sum(1, keepdim=True)
    )
    # "▁", the action slots and </s> follow the prompt, so they shift with its length n = M + 1.
    after = N + 2 + lengths + torch.arange(config.num_action_rows + 2, device=device)
    # BOS is at 0 and proprio at N + 1; computed, because constants cannot enter a CUDA graph.
    bos_proprio = (torch.arange(2, device=device) * (N + 1)).expand(B, 2)
    prompt = (N + 2 + torch.arange(M, device=device)).expand(B, M)
    return torch.cat([after, bos_proprio, prompt, visual_indices + 1], dim=1)


def key_mask(
    config: ModelConfig,
    visual_tokens: Tensor,
    prompt_tokens: Tensor,
    visual_mask: Tensor | None,
    prompt_mask: Tensor | None,
) -> Tensor | None:
    """Return bool [B, L], False for padding; None when every row is real."""
    if visual_mask is None and prompt_mask is None:
        return None
    prompt = padded_mask(_mask_or_ones(prompt_mask, prompt_tokens), config.num_action_rows + _SPECIAL_ROWS)
    return torch.cat([prompt, _mask_or_ones(visual_mask, visual_tokens)], dim=1)


def padded_mask(mask: Tensor, front: int) -> Tensor:
    """Prepend `front` real rows to a bool [B, M] mask."""
    return torch.cat([mask.new_ones(mask.shape[0], front), mask], dim=1)


def in_reference_order(config: ModelConfig, hidden: Tensor, num_retained: int) -> Tensor:
    """Reorder one sample's rows [L, D] to BOS, visual, proprio, prompt, "▁", slots, </s>."""
    A = config.num_action_rows
    num_prompt = hidden.shape[0] - num_retained - (A + _SPECIAL_ROWS)
    tail, bos, proprio, prompt, visual = hidden.split([A + 2, 1, 1, num_prompt, num_retained])
    return torch.cat([bos, visual, proprio, prompt, tail])


def _mask_or_ones(mask: Tensor | None, tokens: Tensor) -> Tensor:
    if mask is None:
        return torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
    return mask
