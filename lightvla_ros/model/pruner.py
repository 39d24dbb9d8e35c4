"""Query-driven pruning of visual tokens (spec §4; LightVLA, arXiv 2509.12594).

With n the RMS normalisation (eps 1e-6, no weight), P the patches and T the task tokens:

    Q = n(softmax(n(P) n(T)^T / sqrt(D)) n(T))        one query per patch, without parameters
    S = Q n(P)^T / sqrt(D)                            row i: what query i asks for
    retained = unique(argmax_j S_ij)                  inference
    M = onehot(argmax S) + softmax(S) - sg(softmax(S))  training; pruned = M P

or, with learned queries W and keys K (`QueryPruner`, docs/adr/0012), S = n(W) n(K)^T / sqrt(D).

Scores are computed in float32 whatever the model's dtype: bfloat16 ties decide tokens (spec §4.4).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightvla_ros.model.config import ModelConfig

_RMS_EPS = 1e-6


def rms_normalize(x: Tensor) -> Tensor:
    """Divide each row by its root mean square in float32; zero rows stay zero."""
    x = x.float()
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + _RMS_EPS)


class Retained(NamedTuple):
    """A pruned set in a form of static shape.

    Attributes:
        order: int64 [B, N]; the retained indices ascending, then the dropped ones ascending.
        count: int64 [B]; how many of `order` are retained, 1 <= count <= N.
    """

    order: Tensor
    count: Tensor  # type: ignore[assignment]  # hides tuple.count, which nobody calls


class _Pruner(nn.Module):
    """What scores decide, whoever gave them: float32 [B, Q, N], one row per query."""

    @staticmethod
    def keep_mask(score: Tensor) -> Tensor:
        """Mark every token that is some query's first maximum: [B, Q, N] -> bool [B, N].

        A sample whose scores are not all finite keeps nothing, which every engine can see: backends
        disagree about where NaN stands in an argmax.
        """
        # Comparing with arange instead of scattering or NonZero keeps the graph static for export.
        candidates = torch.arange(score.shape[-1], device=score.device)
        chosen = (score.argmax(-1)[:, :, None] == candidates).any(1)
        return chosen & torch.isfinite(score).flatten(1).all(1, keepdim=True)

    @staticmethod
    def retained(keep_mask: Tensor) -> Retained:
        """Order tokens retained first, each part ascending: bool [B, N] -> `Retained`."""
        N = keep_mask.shape[-1]
        key = torch.arange(N, device=keep_mask.device) + N * (~keep_mask).long()
        order = key.topk(N, dim=-1, largest=False, sorted=True).values % N
        return Retained(order=order, count=keep_mask.sum(-1))

    @staticmethod
    def choose_softly(score: Tensor, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Let each query choose one token, differentiably (spec §4.3).

        Args:
            score: [B, Q, N], noise included.
            patches: [B, N, D].

        Returns:
            indices int64 [B, Q] of the chosen tokens, duplicates kept, and the tokens [B, Q, D]: forward
            the hard choice, backward the gradient of softmax(S) P.
        """
        indices = score.argmax(-1)
        hard = F.one_hot(indices, score.shape[-1]).to(score.dtype)
        soft = score.softmax(-1)
        choice = (hard + soft - soft.detach()).to(patches.dtype)  # [B, Q, N]
        return indices, choice @ patches


class TokenPruner(_Pruner):
    """Choose visual tokens by what the task tokens ask for; holds no parameters."""

    def forward(self, patches: Tensor, task_tokens: Tensor, task_mask: Tensor | None = None) -> Tensor:
        """Return the tokens retained at inference.

        Args:
            patches: [B, N, D] projected visual tokens.
            task_tokens: [B, M, D] every token after the visual ones; zero rows change nothing (spec §4.4).
            task_mask: bool [B, M], False for padding; None when all rows are real.

        Returns:
            bool [B, N], True where retained.
        """
        return self.keep_mask(self.score(patches, rms_normalize(task_tokens), task_mask))

    @staticmethod
    def score(patches: Tensor, task_keys: Tensor, task_mask: Tensor | None = None) -> Tensor:
        """Score every patch for every query.

        Args:
            patches: [B, N, D].
            task_keys: float32 [B, M, D], task tokens after `rms_normalize`; those of the prompt can be
                computed once per instruction.
            task_mask: bool [B, M] or None.

        Returns:
            float32 [B, N, N]; row i is query i, column j is candidate token j.
        """
        scale = patches.shape[-1] ** -0.5
        patch_keys = rms_normalize(patches)
        attention = patch_keys @ task_keys.transpose(1, 2) * scale  # [B, N, M]
        if task_mask is not None:
            attention = attention.masked_fill(~task_mask[:, None], float("-inf"))
        queries = rms_normalize(attention.softmax(-1) @ task_keys)  # [B, N, D]
        return queries @ patch_keys.transpose(1, 2) * scale

    @classmethod
    def select_soft(
        cls,
        patches: Tensor,
        task_tokens: Tensor,
        noise_scale: float,
        noise: Tensor,
        task_mask: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Score and let each query choose, see `choose_softly`.

        Args:
            patches: [B, N, D].
            task_tokens: [B, M, D].
            noise_scale: sigma of the additive noise, 1 at the start of training and 0 at its end.
            noise: [B, N, N] uniform in [0, 1).
            task_mask: bool [B, M] or None.

        Returns:
            indices int64 [B, N] of the chosen tokens and the tokens [B, N, D].
        """
        score = cls.score(patches, rms_normalize(task_tokens), task_mask) + noise_scale * noise
        return cls.choose_softly(score, patches)


class QueryPruner(_Pruner):
    """Choose visual tokens by learned queries: `queries` [m, D], of which only the direction counts."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.empty(config.num_queries, config.hidden_size))
        if config.pruner.initialization == "orthogonal":
            nn.init.orthogonal_(self.queries, gain=config.hidden_size**0.5)
        else:
            nn.init.normal_(self.queries)

    def score(self, keys: Tensor, _task_keys: Tensor, _task_mask: Tensor | None = None) -> Tensor:
        """Score every patch for every query, whatever the task: [B, N, D] -> float32 [B, m, N]."""
        scale = keys.shape[-1] ** -0.5
        return rms_normalize(self.queries) @ rms_normalize(keys).transpose(1, 2) * scale


def make_pruner(config: ModelConfig) -> TokenPruner | QueryPruner:
    """Return the pruner a model is to have; learned queries are random."""
    return QueryPruner(config) if config.pruner.is_learned else TokenPruner()


def compact(patches: Tensor, retained: Retained) -> tuple[Tensor, Tensor, Tensor]:
    """Gather each sample's retained tokens, padded to the largest count of the batch.

    Args:
        patches: [B, N, D].
        retained: from `TokenPruner.retained`.

    Returns:
        tokens [B, K, D], their indices int64 [B, K], and the mask bool [B, K] that hides padding.
    """
    longest = int(retained.count.max())
    indices = retained.order[:, :longest]
    mask = torch.arange(longest, device=patches.device) < retained.count[:, None]
    tokens = patches.gather(1, indices[:, :, None].expand(-1, -1, patches.shape[-1]))
    return tokens, indices, mask
