"""Behaviour cloning in two stages: first unpruned, then with differentiable pruning (spec §4.3, §7).

Training with the pruner from scratch collapses to a handful of tokens, as the reference's authors found
too; an unpruned policy first gives the scores something to rank.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from lightvla_ros.learn.batches import Batch, BatchSource
from lightvla_ros.learn.pointing import PointingHead
from lightvla_ros.model import LightVla

_WARMUP = 0.03
_GRADIENT_NORM = 1.0
_EMA_DECAY = 0.998
# Of the pointing loss beside the mean L1 of the actions, unpruned stage only.
_POINTING_WEIGHT = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One stage of training.

    The learning rate and the noise follow the time spent, so that a stage ends annealed however fast
    the machine is.

    Attributes:
        name: shown in the log.
        prune: train with differentiable selection, else on every visual token.
        minutes: how long.
        learning_rate: peak; linear warm-up, then a cosine to zero.
        batch_size: chunks per step.
    """

    name: str
    prune: bool
    minutes: float
    learning_rate: float = 1e-3
    batch_size: int = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Where training stands.

    Attributes:
        stage: name of the stage.
        step: optimiser steps in this stage.
        progress: 0..1 of the stage.
        loss: mean L1 over the last steps.
        pointing_loss: mean of the pointing task over the last steps, 0 in a pruned stage.
        held_out_loss: L1 of held-out chunks, run as at test time (hard selection, each token once).
        retained_mean: test-time retained tokens of the held-out chunks; all of them in an unpruned stage.
        retained_min: the smallest of those counts.
        samples_per_s: training speed.
    """

    stage: str
    step: int
    progress: float
    loss: float
    pointing_loss: float
    held_out_loss: float
    retained_mean: float
    retained_min: int
    samples_per_s: float


def train_stage(
    model: LightVla,
    stage: Stage,
    source: BatchSource,
    held_out: Batch,
    *,
    seed: int,
    report_every_s: float = 60.0,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[tuple[Report, LightVla]]:
    """Train one stage in place, yielding the averaged model at every report and at the end.

    Args:
        model: trained in place; ends with the averaged weights.
        stage: what to do.
        source: training chunks.
        held_out: chunks of episodes that are not in `source`.
        seed: of the batch order and the noise.
        report_every_s: seconds between reports.
        clock: seconds, monotonic.

    Yields:
        A report and the averaged model it describes (not to be modified).
    """
    rng = np.random.default_rng(seed)
    generator = torch.Generator().manual_seed(seed)
    pointing = PointingHead(model.config.hidden_size)
    optimizer = torch.optim.AdamW(
        [*model.parameters(), *pointing.parameters()], lr=stage.learning_rate, weight_decay=0.01
    )
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(_EMA_DECAY))
    started = reported = clock()
    losses: list[tuple[float, float]] = []
    for step, batch in enumerate(source.stream(stage.batch_size, rng), start=1):
        progress = min((clock() - started) / (60.0 * stage.minutes), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = stage.learning_rate * _learning_rate_factor(progress)
        selection = _Selection(stage.prune, 1.0 - progress, generator)
        losses.append(_step(model, pointing, optimizer, batch, selection))
        average.update_parameters(model)
        if progress >= 1.0 or clock() - reported >= report_every_s:
            averaged = cast(LightVla, average.module)
            held_out_loss, counts = evaluate(averaged, held_out, prune=stage.prune)
            report = Report(
                stage=stage.name,
                step=step,
                progress=progress,
                loss=float(np.mean(losses, axis=0)[0]),
                pointing_loss=float(np.mean(losses, axis=0)[1]),
                held_out_loss=held_out_loss,
                retained_mean=float(counts.float().mean()),
                retained_min=int(counts.min()),
                samples_per_s=len(losses) * stage.batch_size / (clock() - reported),
            )
            yield report, averaged
            reported, losses = clock(), []
        if progress >= 1.0:
            break
    model.load_state_dict(average.module.state_dict())


@dataclass(frozen=True, slots=True)
class _Selection:
    """How this step selects visual tokens: soft with noise, or not at all."""

    prune: bool
    noise_scale: float
    generator: torch.Generator


def predict_for_training(model: LightVla, batch: Batch, selection: _Selection) -> tuple[Tensor, Tensor]:
    """Predict differentiably; pruning takes one token per query (spec §4.3).

    Returns:
        normalised chunks [B, chunk_size, A], and the decoder's rows [B, N, D] of the visual tokens.
    """
    patches = model.encode_images(batch.pixel_values)
    prompt = model.embed_prompt(batch.input_ids)
    B, N, _ = patches.shape
    if selection.prune:
        noise = torch.rand(B, N, N, generator=selection.generator)
        tokens, mask = model.task_tokens(prompt, batch.proprio, batch.prompt_mask)
        with torch.autocast("cpu", enabled=False):
            indices, visual = model.pruner.select_soft(
                patches.float(), tokens.float(), selection.noise_scale, noise, mask
            )
        visual = visual.to(patches.dtype)
    else:
        indices, visual = torch.arange(N).expand(B, N), patches
    hidden = model.decode(
        visual, indices, prompt, batch.proprio, prompt_mask=batch.prompt_mask, every_row=True
    )
    return model.action_head(hidden[:, model.head_rows]).float(), hidden[:, -N:]


def _step(
    model: LightVla,
    pointing: PointingHead,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    selection: _Selection,
) -> tuple[float, float]:
    """Take one step; return the L1 of the actions and the pointing loss."""
    model.train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        predicted, visual_hidden = predict_for_training(model, batch, selection)
        pointed = torch.zeros(()) if selection.prune else pointing.loss(visual_hidden, batch.shares)
    error = (predicted - batch.actions).abs().mean()
    optimizer.zero_grad(set_to_none=True)
    (error + _POINTING_WEIGHT * pointed).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), _GRADIENT_NORM)
    optimizer.step()
    return float(error.detach()), float(pointed.detach())


@torch.inference_mode()
def evaluate(model: LightVla, batch: Batch, *, prune: bool) -> tuple[float, Tensor]:
    """Return the mean L1 of a batch run as at test time and each sample's retained count int64 [B]."""
    model.eval()
    if prune:
        predicted, keep_mask = model.predict(
            batch.pixel_values, batch.input_ids, batch.proprio, batch.prompt_mask
        )
        return float((predicted - batch.actions).abs().mean()), keep_mask.sum(-1)
    predicted, _ = predict_for_training(model, batch, _Selection(False, 0.0, torch.Generator()))
    counts = torch.full((len(predicted),), model.config.num_patches)
    return float((predicted - batch.actions).abs().mean()), counts


def _learning_rate_factor(progress: float) -> float:
    if progress < _WARMUP:
        return progress / _WARMUP
    return 0.5 * (1.0 + math.cos(math.pi * (progress - _WARMUP) / (1.0 - _WARMUP)))
