"""`lightvla train`: clone the demonstrations into a pruned policy, from data to checkpoint."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

HELP = "train the mini policy from demonstrations, unpruned first, then pruned"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("demonstrations", type=Path, help="directory written by `lightvla collect`")
    parser.add_argument("--out", type=Path, required=True, help="directory for checkpoints and the log")
    parser.add_argument("--unpruned-minutes", type=float, default=40.0, help="first stage (default: 40)")
    parser.add_argument("--pruned-minutes", type=float, default=20.0, help="second stage (default: 20)")
    parser.add_argument("--batch-size", type=int, default=16, help="chunks per step (default: 16)")
    parser.add_argument("--learning-rate", type=float, default=8e-4, help="peak of the first stage")
    parser.add_argument("--start", type=Path, help="checkpoint to start from instead of fresh weights")
    parser.add_argument("--held-out", type=int, default=16, help="episodes kept for validation (default: 16)")
    parser.add_argument("--seed", type=int, default=0, help="of weights, batches and noise (default: 0)")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default: 2)")


def run(args: argparse.Namespace) -> int:
    """Train both stages; each leaves a checkpoint directory and lines in `log.jsonl`."""
    import torch

    from lightvla_ros.learn.run import prepare, save
    from lightvla_ros.learn.training import Stage, train_stage

    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    run_ = prepare(args.demonstrations, num_held_out=args.held_out, start=args.start, seed=args.seed)
    stages = (
        Stage(
            name="unpruned",
            prune=False,
            minutes=args.unpruned_minutes,
            batch_size=args.batch_size,
            learning_rate=args.learning_rate,
        ),
        Stage(
            name="pruned",
            prune=True,
            minutes=args.pruned_minutes,
            batch_size=args.batch_size,
            # The second stage fine-tunes: a full peak would undo the first.
            learning_rate=args.learning_rate / 2,
        ),
    )
    args.out.mkdir(parents=True, exist_ok=True)
    with (args.out / "log.jsonl").open("a", encoding="utf-8") as log:
        for stage in stages:
            if stage.minutes <= 0:
                continue
            for report, averaged in train_stage(
                run_.model, stage, run_.source, run_.held_out, seed=args.seed
            ):
                line = json.dumps({key: _rounded(value) for key, value in asdict(report).items()})
                print(line, flush=True)
                log.write(line + "\n")
                log.flush()
                save(run_, averaged, args.out / stage.name, {**asdict(stage), **asdict(report)})
    return 0


def _rounded(value: object) -> object:
    return round(value, 4) if isinstance(value, float) else value
