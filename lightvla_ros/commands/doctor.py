"""`lightvla doctor`: what this machine has, lacks, and how to get it."""

from __future__ import annotations

import argparse
import json
import textwrap
from dataclasses import asdict
from itertools import groupby
from typing import TYPE_CHECKING

from lightvla_ros.commands._arguments import positive_float

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lightvla_ros.commands._finding import Finding

HELP = "look at package, ROS, machine, a bundle and the running graph, and say how to mend what is wrong"

_MARKS = {"ok": "ok", "note": "-", "warning": "WARNING", "error": "ERROR"}
_WIDTH = 110
_INDENT = 11
_MAX_SECONDS = 3600.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.add_argument(
        "bundle",
        nargs="?",
        default="mini",
        help="bundle to look at: a directory or a name (default: %(default)s)",
    )
    parser.add_argument(
        "--node",
        metavar="NAME",
        help="full name of the policy node, such as /left/lightvla_policy (default: /lightvla_policy, or "
        "else one in any namespace)",
    )
    parser.add_argument(
        "--seconds",
        type=_seconds,
        default=3.0,
        metavar="S",
        help="how long to listen to the graph (default: %(default)g)",
    )
    parser.add_argument("--no-graph", action="store_true", help="do not listen to the graph")
    parser.add_argument("--json", action="store_true", help="end with one JSON object")


def run(args: argparse.Namespace) -> int:
    """Look and return 1 when something is in the way of every policy."""
    from lightvla_ros.commands._findings import findings

    found: list[Finding] = []
    looked_at = findings(args.bundle, node=args.node, seconds=0.0 if args.no_graph else args.seconds)
    # Printed as it is found: listening takes a while.
    for section, group in groupby(looked_at, key=lambda finding: finding.section):
        print(section, flush=True)
        for finding in group:
            found.append(finding)
            print("\n".join(_lines(finding)), flush=True)
    print(_count(found))
    passed = not any(finding.level == "error" for finding in found)
    if args.json:
        print(json.dumps({"passed": passed, "findings": [asdict(finding) for finding in found]}))
    return 0 if passed else 1


def _lines(finding: Finding) -> Iterator[str]:
    yield _wrapped(f"  {_MARKS[finding.level]:<{_INDENT - 2}}", finding.text)
    if finding.fix:
        yield _wrapped(" " * _INDENT, f"fix: {finding.fix}")


def _count(found: Sequence[Finding]) -> str:
    counts = {level: sum(finding.level == level for finding in found) for level in ("error", "warning")}
    return ", ".join(f"{count} {level}{'' if count == 1 else 's'}" for level, count in counts.items())


def _wrapped(prefix: str, text: str) -> str:
    # Commands and paths must stay whole, to be copied.
    return textwrap.fill(
        text,
        _WIDTH,
        initial_indent=prefix,
        subsequent_indent=" " * _INDENT,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _seconds(text: str) -> float:
    value = positive_float(text)
    if value > _MAX_SECONDS:
        raise argparse.ArgumentTypeError(f"got {text!r}; expected at most {_MAX_SECONDS:g} seconds")
    return value
