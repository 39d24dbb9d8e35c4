"""A training run: demonstrations in, stages one after the other, checkpoints in the published layout out."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from lightvla_ros.backends.tokenizer import TOKENIZER_NAME
from lightvla_ros.learn.collapse import CollapseGuard
from lightvla_ros.learn.data import TrainingData, load_data
from lightvla_ros.learn.log import TrainingLog, flat
from lightvla_ros.learn.lora import merged
from lightvla_ros.learn.network import compile_network, make_network, require_compiler
from lightvla_ros.learn.recipes import TrainingConfig
from lightvla_ros.learn.resume import TrainingState, load_state, save_state
from lightvla_ros.learn.stages import Stage
from lightvla_ros.learn.training import Report, StageTraining
from lightvla_ros.model import LightVla, save_checkpoint

if TYPE_CHECKING:
    from accelerate import Accelerator


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Run:
    """What a training works on.

    Attributes:
        config: what to do.
        data: what to learn from.
        model: trained in place.
    """

    config: TrainingConfig
    data: TrainingData
    model: LightVla

    @property
    def stages(self) -> list[Stage]:
        """The stages that have steps."""
        return [stage for stage in self.config.stages if stage.steps]


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """A step was taken.

    Attributes:
        stage: its name.
        step: steps of the stage so far.
        steps: of the whole stage.
        report: how training stands; None at most steps.
    """

    stage: str
    step: int
    steps: int
    report: Report | None


def make_accelerator() -> Accelerator:
    """Join the processes that `accelerate launch` started, or stay alone; chooses the device."""
    from accelerate import Accelerator

    # Precision is the objective's business, so that it is part of the run's configuration.
    return Accelerator(mixed_precision="no")


def prepare(config: TrainingConfig) -> Run:
    """Load the demonstrations, and build or load the model.

    Raises:
        ConfigError: data and model do not fit each other, there are not enough episodes, or no compiler for
            `compile`.
        SpecError: an episode is bad; names it and the field.
        CheckpointError: `start` is not a usable checkpoint.
    """
    if config.compile:
        require_compiler()
    data = load_data(config)
    if not data.can_point:
        config = replace(config, settings=replace(config.settings, pointing_weight=0.0))
    return Run(config=config, data=data, model=make_network(config, data.sizes, data.statistics))


def train(
    run: Run, directory: Path, *, accelerator: Accelerator, resume: bool = False, tensorboard: bool = False
) -> Iterator[Progress]:
    """Train every stage, leaving log, state and a checkpoint of each in the directory.

    Args:
        run: from `prepare`; the model ends with the last stage's weights.
        directory: exists.
        accelerator: from `make_accelerator`.
        resume: go on from the directory's state, where there is one.
        tensorboard: also write TensorBoard's files.

    Raises:
        CollapseError: the pruner has collapsed; what was trained so far is on disk.
    """
    if run.config.compile:
        compile_network(run.model)
    state = load_state(directory) if resume else None
    names = [stage.name for stage in run.stages]
    keep = (state.stage, state.training["step"]) if state else (-1, 0)
    with (
        TrainingLog(directory, names, keep=keep, tensorboard=tensorboard)
        if accelerator.is_main_process
        else nullcontext()
    ) as log:
        record = _Record(run=run, directory=directory, log=log)
        for number in range(state.stage if state else 0, len(run.stages)):
            yield from _train_stage(record, number, state, accelerator)
            state = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Record:
    """Where a run leaves its traces; without a log, another process does that.

    Attributes:
        run: from `prepare`.
        directory: of the run.
        log: open, or None.
    """

    run: Run
    directory: Path
    log: TrainingLog | None

    def keep(self, training: StageTraining, report: Report, state: TrainingState) -> None:
        """Log a report, and where it is due write a checkpoint and the state to resume from."""
        if self.log is None:
            return
        self.log.write(report)
        if report.step % self.run.config.save_every == 0 or report.step == report.steps:
            save_policy(self.run, training.averaged, self.directory / report.stage, report)
            save_state(self.directory, state)


def _train_stage(
    record: _Record, number: int, state: TrainingState | None, accelerator: Accelerator
) -> Iterator[Progress]:
    run = record.run
    config, model, stage = run.config, run.model, run.stages[number]
    training = StageTraining(model, stage, number=number, settings=config.settings, accelerator=accelerator)
    guard = CollapseGuard(
        config.collapse,
        floor=config.collapse.floor(model.config.num_patches, model.num_queries),
        bad_reports=state.bad_reports if state else 0,
    )
    if state is not None:
        training.load_state_dict(state.training)
    for report in training.run(run.data.source, run.data.held_out, report_every=config.report_every):
        if report is not None:
            if stage.prune:
                guard.take(report.held_out, report.step / report.steps)
            record.keep(
                training,
                report,
                TrainingState(stage=number, training=training.state_dict(), bad_reports=guard.bad_reports),
            )
        yield Progress(stage=stage.name, step=training.step, steps=stage.steps, report=report)
        # After the report has been shown; a resumed run learns only from its next one what was wrong.
        if report is not None:
            guard.check()


def save_policy(run: Run, model: LightVla, directory: Path, report: Report) -> None:
    """Write a checkpoint directory that `lightvla export` and `load_policy` read, adapters merged."""
    plain = merged(model) if run.config.lora else model
    unfinished = directory.with_name(f".{directory.name}.part")
    shutil.rmtree(unfinished, ignore_errors=True)
    # Short and without paths, because it goes on into bundles; `training.json` has everything.
    training = {"recipe": run.config.recipe, "seed": run.config.settings.seed, **flat(report)}
    save_checkpoint(plain, unfinished, extras={"policy": run.data.policy, "training": training})
    (unfinished / TOKENIZER_NAME).write_text(run.data.tokenizer, encoding="utf-8")
    shutil.rmtree(directory, ignore_errors=True)
    unfinished.rename(directory)
