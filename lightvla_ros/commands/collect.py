"""`lightvla collect`: demonstrations of the scripted expert, of its own driving or of a policy's."""

from __future__ import annotations

import argparse
import json
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from lightvla_ros.commands._arguments import positive_int
from lightvla_ros.core.errors import ConfigError
from lightvla_ros.sim.worlds import TABLETOP, WorldConfig

if TYPE_CHECKING:
    from lightvla_ros.learn.dagger import Dagger

HELP = "collect demonstrations of the scripted expert"
RANDOMIZE = {"none": 0.0, "mild": 0.5, "full": 1.0}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    world = parser.add_mutually_exclusive_group()
    world.add_argument("--world", choices=(TABLETOP,), default=TABLETOP, help="the embedded world (default)")
    world.add_argument("--suite", metavar="NAME", help="of LIBERO: libero_object or libero_spatial")
    parser.add_argument(
        "--episodes", type=positive_int, default=640, help="episodes to attempt (default: 640)"
    )
    parser.add_argument("--workers", type=positive_int, default=2, help="processes (default: 2)")
    parser.add_argument(
        "--seed",
        type=int,
        help="of the first episode (default: 1000); LIBERO: of the first initial state (default: 0)",
    )
    parser.add_argument("--image-size", type=positive_int, default=112, help="pixels of the stored images")
    parser.add_argument(
        "--randomize",
        choices=tuple(RANDOMIZE),
        help="tabletop: how much colours, light, cameras and start pose change (default: mild)",
    )
    parser.add_argument(
        "--wording",
        choices=("varied", "standard"),
        help="tabletop: ask in many words or in the eight standard sentences (default: varied)",
    )
    parser.add_argument(
        "--policy",
        metavar="ENGINE",
        help="DAgger: this bundle or checkpoint drives, the expert labels every state; all episodes are kept",
    )
    parser.add_argument("--backend", default="auto", help="of the policy (default: auto)")
    parser.add_argument(
        "--beta",
        type=float,
        default=0.2,
        help="with --policy, probability that the expert drives the next second (default: 0.2)",
    )
    parser.add_argument("--out", type=Path, required=True, help="new directory for the demonstrations")
    parser.add_argument("--json", action="store_true", help="print the summary as one JSON object")


def run(args: argparse.Namespace) -> int:
    """Collect, showing progress; 1 when no episode was kept."""
    from tqdm import tqdm

    from lightvla_ros.learn.collection import Collection, collect

    _check_out(args.out)
    randomize, wording, seed = ("none", "standard", 0) if args.suite else ("mild", "varied", 1000)
    collection = Collection(
        directory=args.out,
        episodes=args.episodes,
        seed=seed if args.seed is None else args.seed,
        image_size=args.image_size,
        workers=args.workers,
        world=WorldConfig(
            name=args.suite or args.world,
            # Pictures are made small anyway, and each of them takes LIBERO longer than the step.
            render="fast",
            randomize=RANDOMIZE[args.randomize or randomize],
        ),
        vary_wording=(args.wording or wording) == "varied",
        dagger=_dagger(args) if args.policy else None,
    )
    started = time.monotonic()
    attempts = list(tqdm(collect(collection), total=args.episodes, unit="episode", smoothing=0.05))
    kept = [attempt for attempt in attempts if attempt.kept]
    summary = {
        "directory": str(args.out),
        "attempted": len(attempts),
        "succeeded": sum(attempt.success for attempt in attempts),
        "kept": len(kept),
        "steps": sum(attempt.steps for attempt in kept),
        "seconds": round(time.monotonic() - started, 1),
    }
    print(json.dumps(summary) if args.json else _sentence(summary))
    return 0 if kept else 1


def _check_out(directory: Path) -> None:
    """Refuse what would mix the demonstrations with other files, before anything starts."""
    is_free = directory.is_dir() and not any(directory.iterdir())
    if directory.exists() and not is_free:
        raise ConfigError(
            "--out",
            got=f"{directory}, which is {'not empty' if directory.is_dir() else 'a file'}",
            expected="an empty or new directory",
            fix="choose another --out",
        )


def _dagger(args: argparse.Namespace) -> Dagger:
    from lightvla_ros.app import load_policy
    from lightvla_ros.backends.loading import find_directory
    from lightvla_ros.learn.dagger import Dagger

    # A wrong name is told before any process starts.
    directory = find_directory(args.policy)
    load = partial(load_policy, directory, backend=args.backend, num_threads=1)
    return Dagger(load=load, name=args.policy, beta=args.beta)


def _sentence(summary: dict[str, object]) -> str:
    return (
        "{succeeded} of {attempted} episodes succeeded; kept {kept}, {steps} steps, in {seconds} s: "
        "{directory}"
    ).format(**summary)
