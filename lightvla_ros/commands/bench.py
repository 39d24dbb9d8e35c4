"""`lightvla bench`: latency of every stage over retained-token counts, every backend in one run."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from lightvla_ros.commands._arguments import positive_int

if TYPE_CHECKING:
    from lightvla_ros.backends.roofline import Roofline
    from lightvla_ros.commands._bench_engines import EngineChoice
    from lightvla_ros.commands._stage_latency import Measured

HELP = "measure the latency of each stage over retained-token counts, on every backend present"

_DEFAULT_RANDOM = "512x8@8"
_DEFAULT_RETAINED = (512, 256, 128, 78, 64, 32, 16)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    # long: a call per option.
    parser.add_argument(
        "bundle", nargs="?", default="mini", help="bundle or checkpoint, or 'none' (default: %(default)s)"
    )
    parser.add_argument(
        "--backend",
        nargs="+",
        default=["all"],
        metavar="NAME",
        help="backends to compare; 'all' takes those that run here; 'reference-style' is torch doing the "
        "work the published code does (default: all)",
    )
    parser.add_argument(
        "--retained",
        type=positive_int,
        nargs="+",
        default=list(_DEFAULT_RETAINED),
        metavar="K",
        help="retained tokens to measure; counts above the model's tokens are left out "
        f"(default: {' '.join(map(str, _DEFAULT_RETAINED))})",
    )
    parser.add_argument(
        "--repeat", type=positive_int, default=20, help="chunks per backend and count (default: %(default)s)"
    )
    parser.add_argument(
        "--threads", type=positive_int, help="CPU threads of each backend (default: every CPU there is)"
    )
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="cpu",
        help="where the torch backends run (default: %(default)s)",
    )
    parser.add_argument(
        "--random",
        default=_DEFAULT_RANDOM,
        metavar="WIDTHxLAYERS[@GRID]",
        help="also measure a model of this size with random weights and GRID x GRID patches per camera "
        "(16 if not given), or 'none' (default: %(default)s)",
    )
    parser.add_argument("--plots", type=Path, metavar="DIR", help="write pictures of the figures there")
    parser.add_argument(
        "--suggest-buckets",
        action="store_true",
        help="instead, count retained tokens on frames and suggest the buckets that pad them least",
    )
    parser.add_argument(
        "--frames", type=positive_int, default=200, help="frames to count on (default: %(default)s)"
    )
    parser.add_argument(
        "--frames-from",
        choices=("auto", "tabletop", "random"),
        default="auto",
        help="tabletop: the policy acts in the simulated world (default for policies trained there)",
    )
    parser.add_argument("--json", action="store_true", help="end with one JSON object")


def run(args: argparse.Namespace) -> int:
    """Measure, print the tables, draw the plots."""
    return _suggest_buckets(args) if args.suggest_buckets else _measure(args)


def _suggest_buckets(args: argparse.Namespace) -> int:
    from lightvla_ros.commands._retained_counts import report_buckets

    report = report_buckets(
        args.bundle,
        backend="auto" if args.backend == ["all"] else args.backend[0],
        num_threads=_threads(args),
        frames=args.frames,
        source=args.frames_from,
    )
    print(report)
    if args.json:
        print(json.dumps(report.to_mapping()))
    return 0


def _measure(args: argparse.Namespace) -> int:
    from lightvla_ros.commands._bench_engines import EngineChoice
    from lightvla_ros.commands._bench_report import summary, table
    from lightvla_ros.commands._stage_latency import with_bounds

    choice = EngineChoice(backends=tuple(args.backend), num_threads=_threads(args), device=args.device)
    if args.plots is not None:
        from lightvla_ros.commands._plots import require_matplotlib

        require_matplotlib()  # before the minutes of measuring
    before = _roofline(choice)
    measured = [*_measure_bundle(args, choice), *_measure_random(args, choice)]
    # Other load on the machine can only lower what is measured, so the best of two times is nearer.
    roofline = before and before.best(_roofline(choice))
    if roofline is not None:
        print(roofline)
        measured = [with_bounds(model, roofline) for model in measured]
    for model in measured:
        print(table(model))
    if args.plots is not None:
        _draw(args.plots, measured)
    if args.json:
        print(json.dumps(summary(measured, roofline, choice)))
    return 0


def _roofline(choice: EngineChoice) -> Roofline | None:
    if choice.device == "cpu":
        from lightvla_ros.backends.roofline import measure_roofline

        return measure_roofline(choice.num_threads)
    if choice.device == "cuda" and importlib.util.find_spec("torch") is not None:
        from lightvla_ros.backends.torch_roofline import measure_gpu_roofline

        return measure_gpu_roofline()
    return None  # where "auto" leads is known only when an engine is loaded


def _measure_bundle(args: argparse.Namespace, choice: EngineChoice) -> list[Measured]:
    from lightvla_ros.commands._bench_engines import BundleSource, engines_of
    from lightvla_ros.commands._stage_latency import measure

    if args.bundle == "none":
        return []
    with engines_of(BundleSource(args.bundle, choice), choice) as engines:
        return [measure(engines, args.retained, args.repeat)]


def _measure_random(args: argparse.Namespace, choice: EngineChoice) -> list[Measured]:
    from lightvla_ros.commands._bench_engines import engines_of
    from lightvla_ros.commands._random_size import RandomSize
    from lightvla_ros.commands._stage_latency import measure

    if args.random == "none":
        return []
    size = RandomSize.parse(args.random)
    if importlib.util.find_spec("torch") is None:
        print(f"skipping the random {size} model: torch, which builds it, is not installed", file=sys.stderr)
        return []
    from lightvla_ros.commands._random_bundle import random_source

    with random_source(size, choice) as source, engines_of(source, choice) as engines:
        return [measure(engines, args.retained, args.repeat)]


def _draw(directory: Path, measured: list[Measured]) -> None:
    from lightvla_ros.commands._plots import draw_latency, draw_stages

    directory.mkdir(parents=True, exist_ok=True)
    for model in measured:
        for draw, subject in ((draw_latency, "latency"), (draw_stages, "stages")):
            path = directory / f"{model.name}-{subject}.png"
            draw(model, path)
            print(f"picture {path}")


def _threads(args: argparse.Namespace) -> int:
    return int(args.threads or len(os.sched_getaffinity(0)))
