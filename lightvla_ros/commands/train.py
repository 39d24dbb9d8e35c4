"""`lightvla train`: clone demonstrations into a pruned policy, from data to checkpoint."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, groupby
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightvla_ros.core.errors import ConfigError

if TYPE_CHECKING:
    from lightvla_ros.learn.recipes import TrainingConfig
    from lightvla_ros.learn.run import Progress

HELP = "train a policy from demonstrations, unpruned first, then pruned"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options; those without a default take the recipe's."""
    parser.add_argument(
        "demonstrations", nargs="*", help="directories of `lightvla collect`, or LeRobot data sets"
    )
    parser.add_argument("--out", type=Path, help="directory for checkpoints, log and state")
    parser.add_argument("--resume", type=Path, metavar="DIR", help="go on with the training in this --out")
    parser.add_argument(
        "--recipe",
        choices=("mini", "libero-7b"),
        default="mini",
        help="preset: the mini policy from nothing, or adapters on published 7B weights (default: mini)",
    )
    parser.add_argument(
        "--mapping", help="what a LeRobot data set's columns mean (default: its lightvla.yaml)"
    )
    parser.add_argument("--start", help="checkpoint to start from instead of fresh weights")
    parser.add_argument(
        "--dry-run", action="store_true", help="print weights, memory and operations, then stop"
    )
    parser.add_argument(
        "--tensorboard", action="store_true", help="also log for TensorBoard, in OUT/tensorboard"
    )
    _add_stage_arguments(parser.add_argument_group("stages"))
    _add_pruner_arguments(parser.add_argument_group("pruner"))
    _add_run_arguments(parser.add_argument_group("run"))


def run(args: argparse.Namespace) -> int:
    """Train, or say what training would take."""
    import torch

    from lightvla_ros.learn.recipes import read_config

    if args.resume is None and not (args.demonstrations or (args.dry_run and args.recipe != "mini")):
        raise ConfigError("demonstrations", got="none", fix="lightvla train DIRECTORY --out DIRECTORY")
    config = read_config(args.resume) if args.resume else _config(args)
    if config.threads:
        torch.set_num_threads(config.threads)
    if args.dry_run:
        return _dry_run(config)
    directory = args.resume or args.out
    if directory is None:
        raise ConfigError("--out", got="none", expected="a directory", fix="--out run")
    return _train(config, directory, resume=args.resume is not None, tensorboard=args.tensorboard)


def _train(config: TrainingConfig, directory: Path, *, resume: bool, tensorboard: bool) -> int:
    from lightvla_ros.learn.recipes import CONFIG_FILE
    from lightvla_ros.learn.run import make_accelerator, prepare, train

    if not resume and (directory / CONFIG_FILE).exists():
        raise ConfigError(
            "--out",
            got=f"{directory}, which holds a training",
            expected="a new directory",
            fix=f"choose another, or go on with --resume {directory}",
        )
    accelerator = make_accelerator()
    run_ = prepare(config)
    if accelerator.is_main_process:
        directory.mkdir(parents=True, exist_ok=True)
        run_.config.write(directory)
    progress = train(run_, directory, accelerator=accelerator, resume=resume, tensorboard=tensorboard)
    for name, steps in groupby(progress, key=attrgetter("stage")):
        _follow(name, steps, shown=accelerator.is_main_process)
    accelerator.end_training()
    if accelerator.is_main_process:
        checkpoint = directory / run_.stages[-1].name
        print(f"done: {checkpoint}. Next: lightvla export {checkpoint} --out engines/NAME")
    return 0


def _follow(name: str, steps: Iterator[Progress], *, shown: bool) -> None:
    """Show one stage: a bar on a terminal, and each report as a line of JSON."""
    from tqdm import tqdm

    from lightvla_ros.learn.log import flat

    first = next(steps)
    bar = tqdm(
        chain([first], steps),
        desc=name,
        unit="step",
        initial=first.step - 1,
        total=first.steps,
        disable=None if shown else True,
    )
    for progress in bar:
        if progress.report is not None and shown:
            tqdm.write(json.dumps(flat(progress.report)))


def _dry_run(config: TrainingConfig) -> int:
    from lightvla_ros.learn.cost import estimate
    from lightvla_ros.learn.data import load_data
    from lightvla_ros.model import ModelConfig

    if config.demonstrations:
        sizes = load_data(config).sizes
    else:
        sizes = ModelConfig.from_directory(Path(config.start)) if config.start else ModelConfig()
    print(estimate(config, sizes).table())
    return 0


def _config(args: argparse.Namespace) -> TrainingConfig:
    """Apply the options to the recipe."""
    from lightvla_ros.learn.recipes import RECIPES

    preset = RECIPES[args.recipe](tuple(args.demonstrations))
    if preset.lora is not None and args.start is None and not args.dry_run:
        raise ConfigError(
            "--start",
            got="none",
            expected="a checkpoint directory of the published layout",
            fix="--start path/to/openvla-7b-oft-finetuned-libero-object",
        )
    settings = replace(
        preset.settings,
        noise=replace(
            preset.settings.noise,
            **_given(kind=args.noise, schedule=args.noise_schedule, scale=args.noise_scale),
        ),
        **_given(seed=args.seed, ema_decay=args.ema_decay, bf16=args.precision and args.precision == "bf16"),
        reference_compatible=args.reference_compatible,
    )
    return replace(
        preset,
        stages=_stages(args, preset),
        settings=settings,
        pruner=_pruner(args),
        collapse=replace(preset.collapse, **_given(min_retained=args.min_retained, max_gap=args.max_gap)),
        **_given(
            mapping=args.mapping,
            start=args.start,
            num_held_out=args.held_out,
            report_every=args.report_every,
            save_every=args.save_every or args.report_every,
            threads=args.threads,
            compile=args.compile or None,
        ),
    )


def _stages(args: argparse.Namespace, preset: TrainingConfig) -> tuple[Any, ...]:
    """Change steps one by one, and the learning rate in proportion to the first stage's."""
    factor = (args.learning_rate or preset.stages[0].learning_rate) / preset.stages[0].learning_rate
    steps = {"unpruned": args.unpruned_steps, "pruned": args.pruned_steps}
    return tuple(
        replace(
            stage,
            learning_rate=stage.learning_rate * factor,
            **_given(steps=steps[stage.name], batch_size=args.batch_size, accumulate=args.accumulate),
        )
        for stage in preset.stages
    )


def _pruner(args: argparse.Namespace) -> Any:
    from lightvla_ros.model import PrunerConfig

    if args.pruner is None:
        return None
    return PrunerConfig(kind=args.pruner, num_queries=args.num_queries)


def _given(**options: Any) -> dict[str, Any]:
    """Drop the options that were not given."""
    return {name: value for name, value in options.items() if value is not None}


def _add_stage_arguments(group: Any) -> None:
    group.add_argument("--unpruned-steps", type=int, metavar="N", help="of the first stage; 0 leaves it out")
    group.add_argument("--pruned-steps", type=int, metavar="N", help="of the second stage; 0 leaves it out")
    group.add_argument("--batch-size", type=int, metavar="N", help="chunks per pass and process")
    group.add_argument("--accumulate", type=int, metavar="N", help="passes per step")
    group.add_argument("--learning-rate", type=float, metavar="X", help="peak of the first stage")
    group.add_argument("--ema-decay", type=float, metavar="X", help="of the averaged weights")
    group.add_argument("--precision", choices=("bf16", "fp32"), help="of products in training")


def _add_pruner_arguments(group: Any) -> None:
    group.add_argument(
        "--pruner",
        choices=("task_queries", "vision_queries", "decoder_queries"),
        help="what asks for visual tokens: LightVLA's task tokens, or learned queries (docs/adr/0012)",
    )
    group.add_argument("--num-queries", type=int, metavar="N", help="of learned queries")
    group.add_argument(
        "--noise", choices=("uniform", "gumbel", "none"), help="on scores: as the released code, as the paper"
    )
    group.add_argument("--noise-schedule", choices=("linear", "fixed"), help="fall to 0, or stay")
    group.add_argument("--noise-scale", type=float, metavar="X", help="factor at the first step")
    group.add_argument(
        "--reference-compatible",
        action="store_true",
        help="let padding take part in the queries, as the reference does in training",
    )
    group.add_argument(
        "--min-retained", type=float, metavar="X", help="share of tokens below which pruning has collapsed"
    )
    group.add_argument(
        "--max-gap", type=float, metavar="X", help="error at test time over that in training, likewise"
    )


def _add_run_arguments(group: Any) -> None:
    group.add_argument(
        "--held-out", type=int, metavar="N", help="episodes kept for validation, spread evenly"
    )
    group.add_argument("--report-every", type=int, metavar="N", help="steps between reports")
    group.add_argument("--save-every", type=int, metavar="N", help="steps between checkpoints")
    group.add_argument("--seed", type=int, metavar="N", help="of weights, batches and noise (default: 0)")
    group.add_argument("--threads", type=int, metavar="N", help="CPU threads")
    group.add_argument(
        "--compile", action="store_true", help="half as fast again on a CPU; needs a C++ compiler"
    )
