"""`lightvla collect`: demonstrations of the scripted expert."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

HELP = "collect demonstrations of the scripted expert"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("--world", choices=("tabletop",), default="tabletop", help="simulated world")
    parser.add_argument("--episodes", type=_positive, default=640, help="episodes to attempt (default: 640)")
    parser.add_argument("--workers", type=_positive, default=2, help="processes (default: 2)")
    parser.add_argument("--seed", type=int, default=1000, help="seed of the first episode (default: 1000)")
    parser.add_argument("--image-size", type=_positive, default=112, help="pixels of the stored images")
    parser.add_argument("--out", type=Path, required=True, help="new directory for the demonstrations")
    parser.add_argument("--json", action="store_true", help="print the summary as one JSON object")


def run(args: argparse.Namespace) -> int:
    """Collect, showing progress; 1 when no episode succeeded."""
    from tqdm import tqdm

    from lightvla_ros.learn.collection import Collection, collect

    collection = Collection(
        directory=args.out,
        episodes=args.episodes,
        seed=args.seed,
        image_size=args.image_size,
        workers=args.workers,
    )
    started = time.monotonic()
    attempts = list(tqdm(collect(collection), total=args.episodes, unit="episode", smoothing=0.05))
    kept = [attempt for attempt in attempts if attempt.success]
    summary = {
        "directory": str(args.out),
        "attempted": len(attempts),
        "kept": len(kept),
        "steps": sum(attempt.steps for attempt in kept),
        "seconds": round(time.monotonic() - started, 1),
    }
    print(json.dumps(summary) if args.json else _sentence(summary))
    return 0 if kept else 1


def _sentence(summary: dict[str, object]) -> str:
    return "kept {kept} of {attempted} episodes, {steps} steps, in {seconds} s: {directory}".format(**summary)


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value
