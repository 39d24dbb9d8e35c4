"""One stage of behaviour cloning, step by step: with or without differentiable pruning (spec §4.3, §7).

A stage is a number of optimiser steps. Learning rate, noise and batches are functions of the step, so a
stage that is interrupted and resumed ends as one that was not.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from lightvla_ros.learn.batches import Batch, BatchSource
from lightvla_ros.learn.held_out import HeldOut, evaluate
from lightvla_ros.learn.noise import Noise
from lightvla_ros.learn.objective import Losses, Objective, Selection
from lightvla_ros.learn.pointing import PointingHead
from lightvla_ros.learn.seeds import seed_of
from lightvla_ros.learn.stages import Stage
from lightvla_ros.model import LightVla

if TYPE_CHECKING:
    from accelerate import Accelerator

# Sources of randomness, beside the run's seed and the stage's number.
_INITIALIZATION, _BATCHES, _NOISE = range(3)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the stages of a run share.

    Attributes:
        seed: of batches, noise and fresh weights.
        noise: on the pruner's scores.
        reference_compatible: see `Selection`.
        bf16: run under bfloat16 autocast.
        ema_decay: of the averaged weights, which are what is evaluated and kept; None keeps the last ones.
        weight_decay: of AdamW.
        pointing_weight: of the pointing task in unpruned stages, 0 for none.
    """

    seed: int = 0
    noise: Noise = Noise()
    reference_compatible: bool = False
    bf16: bool = True
    ema_decay: float | None = 0.998
    weight_decay: float = 0.01
    pointing_weight: float = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Where training stands.

    Attributes:
        stage: name of the stage.
        step: optimiser steps in this stage.
        steps: of the whole stage.
        learning_rate: of the last step.
        noise_scale: of the last step.
        loss: mean L1 over the steps since the last report.
        pointing_loss: likewise, of the pointing task; 0 without it.
        held_out: chunks that are not trained on.
        samples_per_s: training speed of all processes.
    """

    stage: str
    step: int
    steps: int
    learning_rate: float
    noise_scale: float
    loss: float
    pointing_loss: float
    held_out: HeldOut
    samples_per_s: float


def make_objective(model: LightVla, stage: Stage, settings: Settings) -> Objective:
    """Return what a stage minimises, with a fresh pointing head where it points.

    Whether the model's pruner requires gradients follows from the stage.
    """
    # An unpruned pass does not use them, and a wrapper that synchronises gradients waits for every one.
    model.pruner.requires_grad_(stage.prune)
    pointed = settings.pointing_weight > 0 and not stage.prune
    return Objective(
        model,
        pointing=PointingHead(model.config.hidden_size) if pointed else None,
        pointing_weight=settings.pointing_weight,
        bf16=settings.bf16,
    )


class StageTraining:
    """A stage under way, and all that has to be kept of it.

    Args:
        model: trained in place; only weights that require gradients change.
        stage: what to do.
        number: of the stage in its run.
        settings: of the run.
        accelerator: where the processes of a run meet.
    """

    def __init__(
        self, model: LightVla, stage: Stage, *, number: int, settings: Settings, accelerator: Accelerator
    ) -> None:
        self.model = model
        self.stage = stage
        self.step = 0
        self._seed = (settings.seed, number)
        self._settings = settings
        self._accelerator = accelerator
        torch.manual_seed(seed_of(*self._seed, _INITIALIZATION))
        objective = make_objective(model, stage, settings)
        self._pointing = objective.pointing
        optimizer = torch.optim.AdamW(
            [weight for weight in objective.parameters() if weight.requires_grad],
            lr=stage.learning_rate,
            weight_decay=settings.weight_decay,
        )
        self._objective, self._optimizer = accelerator.prepare(objective, optimizer)
        self._average = (
            AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(settings.ema_decay))
            if settings.ema_decay is not None
            else None
        )

    @property
    def averaged(self) -> LightVla:
        """The model as it would be kept now; not to be modified."""
        return self.model if self._average is None else cast(LightVla, self._average.module)

    def run(self, source: BatchSource, held_out: Batch, *, report_every: int) -> Iterator[Report | None]:
        """Train to the end of the stage, leaving the averaged weights in the model.

        Yields:
            after every step: a report at every `report_every`-th and at the last, else None.
        """
        held_out = held_out.to(self._accelerator.device)
        losses: list[Tensor] = []
        started = time.monotonic()
        with ThreadPoolExecutor(max_workers=1) as loader:
            batches = self._load(source, loader)
            while self.step < self.stage.steps:
                losses.append(self._advance(batches))
                if self.step % report_every and self.step < self.stage.steps:
                    yield None
                    continue
                yield self._report(losses, held_out, time.monotonic() - started)
                losses, started = [], time.monotonic()
        if self._average is not None:
            self.model.load_state_dict(self._average.module.state_dict())

    def selection(self, step: int) -> Selection:
        """Return how the step, counted from 0, selects visual tokens."""
        noise = self._settings.noise
        scale = noise.scale_at(step / self.stage.steps) if self.stage.prune else 0.0
        return Selection(self.stage.prune, noise, scale, self._settings.reference_compatible)

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed stage needs beside what it is made from."""
        return {
            "step": self.step,
            "weights": _learned(self.model),
            "average": None if self._average is None else self._average.state_dict(),
            "pointing": None if self._pointing is None else self._pointing.state_dict(),
            "optimizer": self._optimizer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self.step = state["step"]
        self.model.load_state_dict(state["weights"], strict=False)
        for module, kept in ((self._average, state["average"]), (self._pointing, state["pointing"])):
            if module is not None:
                module.load_state_dict(kept)
        self._optimizer.load_state_dict(state["optimizer"])

    def _load(self, source: BatchSource, loader: ThreadPoolExecutor) -> Iterator[Batch]:
        """Yield this process's batches from the present step on; the next is made meanwhile."""
        accelerator, accumulate = self._accelerator, self.stage.accumulate

        def submit(index: int) -> Future[Batch]:
            number = index * accelerator.num_processes + accelerator.process_index
            rng = np.random.default_rng(seed_of(*self._seed, _BATCHES, number))
            return loader.submit(source.draw, self.stage.batch_size, rng)

        last = self.stage.steps * accumulate
        following = submit(self.step * accumulate)
        for index in range(self.step * accumulate, last):
            batch, following = following, submit(index + 1) if index + 1 < last else following
            yield batch.result().to(accelerator.device)

    def _advance(self, batches: Iterator[Batch]) -> Tensor:
        """Take one optimiser step; return the mean losses [2] of its passes."""
        stage, selection = self.stage, self.selection(self.step)
        for group in self._optimizer.param_groups:
            group["lr"] = stage.learning_rate_at(self.step)
        passes = [self._pass(next(batches), index, selection) for index in range(stage.accumulate)]
        if stage.gradient_norm is not None:
            self._accelerator.clip_grad_norm_(self._objective.parameters(), stage.gradient_norm)
        self._optimizer.step()
        self._optimizer.zero_grad()
        if self._average is not None:
            self._average.update_parameters(self.model)
        self.step += 1
        return torch.stack([torch.stack([losses.action_error, losses.pointing]) for losses in passes]).mean(0)

    def _pass(self, batch: Batch, index: int, selection: Selection) -> Losses:
        accelerator, accumulate = self._accelerator, self.stage.accumulate
        number = (self.step * accumulate + index) * accelerator.num_processes + accelerator.process_index
        # Gradients are exchanged once per optimiser step.
        last = index + 1 == accumulate
        with nullcontext() if last else accelerator.no_sync(self._objective):
            losses: Losses = self._objective(batch, selection, (*self._seed, _NOISE, number))
            accelerator.backward(losses.total / accumulate)
        return losses

    def _report(self, losses: list[Tensor], held_out: Batch, seconds: float) -> Report:
        stage, selection = self.stage, self.selection(self.step - 1)
        mean = cast(Tensor, self._accelerator.reduce(torch.stack(losses).mean(0), "mean"))
        samples = len(losses) * stage.batch_size * stage.accumulate * self._accelerator.num_processes
        return Report(
            stage=stage.name,
            step=self.step,
            steps=stage.steps,
            learning_rate=stage.learning_rate_at(self.step - 1),
            noise_scale=selection.noise_scale,
            loss=float(mean[0]),
            pointing_loss=float(mean[1]),
            held_out=evaluate(self.averaged, held_out, selection),
            samples_per_s=samples / seconds,
        )


def _learned(model: nn.Module) -> dict[str, Tensor]:
    """Return the weights that training changes, and those of the pruner, which an unpruned stage leaves."""
    return {
        name: weight.detach()
        for name, weight in model.named_parameters()
        if weight.requires_grad or name.startswith("pruner.")
    }
