"""The pruner against a slow oracle written from the equations of spec §4."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from lightvla_ros.model import TokenPruner
from lightvla_ros.model.pruner import rms_normalize

N, D, M = 24, 16, 7


def tokens(seed: int, batch: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(batch, N, D, generator=generator),
        2 * torch.randn(batch, M, D, generator=generator),
    )


def oracle(patches: NDArray[np.float64], task_tokens: NDArray[np.float64]) -> set[int]:
    """Spec §4.1-4.2, one query at a time."""
    patch_keys = [row / math.sqrt((row**2).mean() + 1e-6) for row in patches]
    task_keys = [row / math.sqrt((row**2).mean() + 1e-6) for row in task_tokens]
    retained = set()
    for key in patch_keys:
        weights = [math.exp(key @ task / math.sqrt(D)) for task in task_keys]
        query = sum(w * task for w, task in zip(weights, task_keys, strict=True)) / sum(weights)
        query = query / math.sqrt((query**2).mean() + 1e-6)
        scores = [query @ other / math.sqrt(D) for other in patch_keys]
        retained.add(scores.index(max(scores)))
    return retained


@pytest.mark.parametrize("seed", range(5))
def test_the_retained_set_is_the_oracles(seed: int) -> None:
    patches, task_tokens = tokens(seed)
    keep_mask = TokenPruner()(patches, task_tokens)[0]
    expected = oracle(patches[0].double().numpy(), task_tokens[0].double().numpy())
    assert set(keep_mask.nonzero()[:, 0].tolist()) == expected


def test_zero_task_rows_change_nothing() -> None:
    patches, task_tokens = tokens(0)
    with_zeros = torch.cat([task_tokens[:, :3], torch.zeros(1, 56, D), task_tokens[:, 3:]], dim=1)
    assert TokenPruner()(patches, with_zeros).equal(TokenPruner()(patches, task_tokens))


def test_masked_task_rows_change_nothing() -> None:
    patches, task_tokens = tokens(0)
    padded = torch.cat([task_tokens, torch.full((1, 4, D), 9.0)], dim=1)
    mask = torch.arange(M + 4)[None] < M
    assert TokenPruner()(patches, padded, mask).equal(TokenPruner()(patches, task_tokens))
    assert not TokenPruner.score(patches, rms_normalize(padded)).equal(
        TokenPruner.score(patches, rms_normalize(padded), mask)
    )


def test_a_batch_gives_what_its_samples_give() -> None:
    patches, task_tokens = tokens(0, batch=3)
    together = TokenPruner()(patches, task_tokens)
    for i in range(3):
        assert together[i].equal(TokenPruner()(patches[i : i + 1], task_tokens[i : i + 1])[0])


def test_of_equal_scores_the_first_token_is_retained() -> None:
    score = torch.zeros(1, 4, 4)
    score[0, 0] = torch.tensor([0.0, 5.0, 5.0, 1.0])
    assert TokenPruner.keep_mask(score)[0].tolist() == [True, True, False, False]


def test_retained_lists_kept_then_dropped_tokens_ascending() -> None:
    keep_mask = torch.tensor([[False, True, False, True, True], [True, False, False, False, False]])
    retained = TokenPruner.retained(keep_mask)
    assert retained.order.tolist() == [[1, 3, 4, 0, 2], [0, 1, 2, 3, 4]]
    assert retained.count.tolist() == [3, 1]


def test_scores_are_float32_whatever_the_dtype_of_the_model() -> None:
    patches, task_tokens = tokens(0)
    score = TokenPruner.score(patches.bfloat16(), rms_normalize(task_tokens.bfloat16()))
    assert score.dtype == torch.float32


def test_soft_selection_is_a_hard_gather_with_the_softmax_gradient() -> None:
    patches, task_tokens = (t.requires_grad_() for t in tokens(1))
    noise = torch.rand(1, N, N, generator=torch.Generator().manual_seed(2))
    indices, pruned = TokenPruner.select_soft(patches, task_tokens, 0.7, noise)
    assert torch.allclose(pruned[0], patches[0, indices[0]], atol=1e-5)

    weight = torch.randn(N, D, generator=torch.Generator().manual_seed(3))
    (pruned[0] * weight).sum().backward()
    score = TokenPruner.score(patches, rms_normalize(task_tokens))[0] + 0.7 * noise[0]
    soft = (score.softmax(-1) @ patches[0].detach() * weight).sum()
    (expected,) = torch.autograd.grad(soft, task_tokens)
    assert expected.abs().max() > 0
    assert torch.allclose(task_tokens.grad, expected, atol=1e-5)


def test_noise_changes_the_selection_and_its_scale_zero_does_not() -> None:
    patches, task_tokens = tokens(0)
    noise = torch.rand(1, N, N, generator=torch.Generator().manual_seed(0))
    quiet, _ = TokenPruner.select_soft(patches, task_tokens, 0.0, noise)
    loud, _ = TokenPruner.select_soft(patches, task_tokens, 1e5, noise)
    score = TokenPruner.score(patches, rms_normalize(task_tokens))
    assert quiet.equal(score.argmax(-1))
    assert loud.equal(noise.argmax(-1))


def test_zero_rows_stay_zero_under_the_norm() -> None:
    assert rms_normalize(torch.zeros(2, D)).equal(torch.zeros(2, D))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_sample_whose_scores_are_not_finite_keeps_nothing(bad: float) -> None:
    score = torch.rand(2, 6, 6)
    score[1, 3, 4] = bad
    keep = TokenPruner.keep_mask(score)
    assert keep[0].any()
    assert not keep[1].any()
