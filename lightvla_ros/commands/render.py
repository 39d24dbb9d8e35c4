"""`lightvla render`: a film or a picture of what the policy retained, from a recording."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from lightvla_ros.commands._arguments import positive_float, positive_int

HELP = "draw a film or a strip of moments from a recording: images, and what was retained of them"

FILMS = (".mp4", ".gif")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.add_argument("bag", type=Path, help="folder of the recording, made by `lightvla record`")
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        help="file to write: a film (.mp4 or .gif), or a strip of moments of one instruction (.png, .jpg)",
    )
    parser.add_argument(
        "--begin-s",
        type=float,
        default=0.0,
        help="where to begin, seconds from the first inference (default: %(default)s)",
    )
    parser.add_argument("--end-s", type=float, default=math.inf, help="where to end (default: at the end)")
    parser.add_argument(
        "--fps", type=positive_float, default=10.0, help="of a film, frames per second (default: %(default)s)"
    )
    parser.add_argument("--width", type=positive_int, help="of a film, pixels (default: as it comes)")
    parser.add_argument("--moments", type=positive_int, default=5, help="of a strip (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Draw."""
    from lightvla_ros.recording.bag import BagReader
    from lightvla_ros.recording.film import Span, draw_film, draw_moments

    span = Span(begin_s=args.begin_s, end_s=args.end_s)
    with BagReader(args.bag) as bag:
        if args.out.suffix in FILMS:
            frames = draw_film(bag, args.out, span=span, fps=args.fps, width=args.width)
            print(f"{args.out}: {frames} frames, {frames / args.fps:.1f} s")
        else:
            moments = draw_moments(bag, args.out, span=span, moments=args.moments)
            print(f"{args.out}: {moments} moments")
    return 0
