"""The error of chunks that are not trained on, as in training and as at test time."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lightvla_ros.learn.batches import Batch
from lightvla_ros.learn.objective import Selection, predict_for_training
from lightvla_ros.model import LightVla

_AT_ONCE = 32
# Noise of a report is the same in every report, so that reports can be compared.
_NOISE_SEED = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """How held-out chunks fare.

    Attributes:
        soft_error: mean L1 with the selection of training: noise, one token per query, duplicates.
        hard_error: mean L1 as at test time: no noise, each token once.
        retained_mean: tokens retained at test time, mean over chunks.
        retained_min: the smallest count.
    """

    soft_error: float
    hard_error: float
    retained_mean: float
    retained_min: int


@torch.no_grad()
def evaluate(model: LightVla, batch: Batch, selection: Selection) -> HeldOut:
    """Run held-out chunks both ways; without pruning both are the same."""
    # In the weights' own precision, as at test time; weights of several are for autocast only.
    mixed = len({weight.dtype for weight in model.parameters()}) > 1
    soft: list[Tensor] = []
    hard: list[Tensor] = []
    counts: list[Tensor] = []
    with torch.autocast(batch.actions.device.type, dtype=torch.bfloat16, enabled=mixed):
        for index, part in enumerate(batch.split(_AT_ONCE)):
            predicted, _ = predict_for_training(model, part, selection, (_NOISE_SEED, index))
            soft.append((predicted - part.actions).abs().mean((1, 2)))
            error, count = _at_test_time(model, part) if selection.prune else (soft[-1], _all(model, part))
            hard.append(error)
            counts.append(count)
    count = torch.cat(counts)
    return HeldOut(
        soft_error=float(torch.cat(soft).mean()),
        hard_error=float(torch.cat(hard).mean()),
        retained_mean=float(count.float().mean()),
        retained_min=int(count.min()),
    )


def _at_test_time(model: LightVla, batch: Batch) -> tuple[Tensor, Tensor]:
    predicted, keep_mask = model.predict(
        batch.pixel_values, batch.input_ids, batch.proprio, batch.prompt_mask
    )
    return (predicted.float() - batch.actions).abs().mean((1, 2)), keep_mask.sum(-1)


def _all(model: LightVla, batch: Batch) -> Tensor:
    return torch.full((len(batch.actions),), model.config.num_patches)
