"""`lightvla bench`: latency of every stage over retained-token counts."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lightvla_ros.commands._stage_latency import Measured, Row, Scaling

HELP = "measure the latency of each stage over retained-token counts"

_DEFAULT_RANDOM = "512x8"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.add_argument(
        "bundle", nargs="?", default="mini", help="bundle or checkpoint (default: %(default)s)"
    )
    parser.add_argument("--backend", default="auto", help="auto, onnxruntime, torch (default: %(default)s)")
    parser.add_argument(
        "--retained",
        type=_positive,
        nargs="+",
        default=[16, 32, 64, 96, 128],
        metavar="K",
        help="retained tokens to measure (default: 16 32 64 96 128)",
    )
    parser.add_argument(
        "--repeat", type=_positive, default=20, help="chunks per count (default: %(default)s)"
    )
    parser.add_argument("--threads", type=_positive, help="CPU threads (default: the backend's choice)")
    parser.add_argument(
        "--random",
        default=_DEFAULT_RANDOM,
        metavar="WIDTHxLAYERS",
        help="also measure a decoder of this size with random weights, or 'none' (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="end with one JSON object")


def run(args: argparse.Namespace) -> int:
    """Measure and print a table per model."""
    from lightvla_ros.app import load_engine
    from lightvla_ros.commands._stage_latency import measure

    measured: list[Measured] = []
    loaded = load_engine(args.bundle, args.backend, num_threads=args.threads)
    measured.append(measure(loaded, args.retained, args.repeat))
    loaded.engine.close()
    if args.random != "none":
        measured += _measure_random(args)
    for model in measured:
        print(_table(model))
    if args.json:
        print(json.dumps(_summary(measured)))
    return 0


def _measure_random(args: argparse.Namespace) -> list[Measured]:
    import importlib.util
    import sys

    from lightvla_ros.commands._stage_latency import measure

    if importlib.util.find_spec("torch") is None:
        print(
            f"skipping the random {args.random} model: torch, which builds it, is not installed",
            file=sys.stderr,
        )
        return []
    from lightvla_ros.commands._random_bundle import random_bundle

    width, layers = _parse_size(args.random)
    with random_bundle(width, layers, num_threads=args.threads) as loaded:
        return [measure(loaded, args.retained, args.repeat)]


def _parse_size(text: str) -> tuple[int, int]:
    from lightvla_ros.core.errors import ConfigError

    width, _, layers = text.partition("x")
    if not (width.isdigit() and layers.isdigit() and int(layers) and int(width) and int(width) % 64 == 0):
        raise ConfigError(
            "--random", got=repr(text), expected="WIDTHxLAYERS, width a multiple of 64", fix="e.g. 512x8"
        )
    return int(width), int(layers)


def _table(model: Measured) -> str:
    sizes = f"{model.num_visual_tokens} visual tokens, {model.prompt_tokens} prompt tokens"
    lines = [
        f"\n{model.name} on {model.backend}: {sizes}, p50 / p95 in ms",
        f"{'retained':>8}" + "".join(f"{stage:>18}" for stage in model.stages),
    ]
    for count in model.retained:
        cells = [row for row in model.rows if row.retained == count]
        lines.append(f"{count:>8}" + "".join(_cell(row) for row in cells))
    lines += [
        "decoder time relative to the largest count",
        f"{'retained':>8}{'measured':>12}{'by FLOPs':>12}{'quotient':>12}",
    ]
    lines += [_scaling_line(scaling) for scaling in model.scaling]
    return "\n".join(lines)


def _cell(row: Row) -> str:
    return f"{row.p50_ms:>9.2f} /{row.p95_ms:>7.2f}"


def _scaling_line(scaling: Scaling) -> str:
    return (
        f"{scaling.retained:>8}{scaling.measured:>12.2f}{scaling.expected:>12.2f}"
        f"{scaling.measured / scaling.expected:>12.2f}"
    )


def _summary(measured: list[Measured]) -> dict[str, object]:
    rows = [
        {
            "model": model.name,
            "backend": model.backend,
            "retained": row.retained,
            "stage": row.stage,
            "p50_ms": row.p50_ms,
            "p95_ms": row.p95_ms,
        }
        for model in measured
        for row in model.rows
    ]
    scaling = [
        {
            "model": model.name,
            "retained": entry.retained,
            "measured": entry.measured,
            "expected": entry.expected,
            "quotient": entry.measured / entry.expected,
        }
        for model in measured
        for entry in model.scaling
    ]
    return {"rows": rows, "decoder_scaling": scaling}


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not at least 1")
    return value
