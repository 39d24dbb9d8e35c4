"""`lightvla doctor`: what this machine has, lacks, and how to get it."""

from __future__ import annotations

import argparse
import json
import textwrap
from dataclasses import asdict
from itertools import groupby
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lightvla_ros.commands._findings import Finding

HELP = "look at package, ROS, backends, GPU and a bundle, and say how to mend what is wrong"

_MARKS = {"ok": "ok", "note": "-", "warning": "WARNING", "error": "ERROR"}
_WIDTH = 110
_INDENT = 11


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.add_argument(
        "bundle",
        nargs="?",
        default="mini",
        help="bundle to look at: a directory or a name (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="end with one JSON object")


def run(args: argparse.Namespace) -> int:
    """Look and return 1 when something is in the way of every policy."""
    from lightvla_ros.commands._findings import findings

    found = list(findings(args.bundle))
    print("\n".join(_lines(found)))
    passed = not any(finding.level == "error" for finding in found)
    if args.json:
        print(json.dumps({"passed": passed, "findings": [asdict(finding) for finding in found]}))
    return 0 if passed else 1


def _lines(found: Sequence[Finding]) -> Iterator[str]:
    for section, group in groupby(found, key=lambda finding: finding.section):
        yield section
        for finding in group:
            yield _wrapped(f"  {_MARKS[finding.level]:<{_INDENT - 2}}", finding.text)
            if finding.fix:
                yield _wrapped(" " * _INDENT, f"fix: {finding.fix}")
    counts = {level: sum(finding.level == level for finding in found) for level in ("error", "warning")}
    yield ", ".join(f"{count} {level}{'' if count == 1 else 's'}" for level, count in counts.items())


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
