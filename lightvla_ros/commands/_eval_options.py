"""The options of `lightvla eval`."""

from __future__ import annotations

import argparse
from pathlib import Path

from lightvla_ros.commands.collect import RANDOMIZE
from lightvla_ros.sim.worlds import RENDERS, TABLETOP

DEFAULT_ENGINE = "mini"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument(
        "--engine",
        "--policy",
        default=DEFAULT_ENGINE,
        help="bundle or checkpoint: a name or a directory; random for a policy that looks at nothing, expert "
        "for the world's scripted one (default: mini)",
    )
    parser.add_argument("--backend", default="auto", help="auto, torch, onnxruntime or tensorrt")
    parser.add_argument("--episodes", type=int, default=40, help="episodes (default: 40)")
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        help="of the first episode; LIBERO: the first of the 50 initial states of each task (default: 0)",
    )
    parser.add_argument("--max-steps", type=int, help="steps until failure (default: the benchmark's)")
    parser.add_argument(
        "--execution-horizon",
        type=int,
        help="steps of a chunk executed per inference (default: 2, as in the node; for LIBERO all 8)",
    )
    parser.add_argument("--json", action="store_true", help="end with one JSON object")
    _add_world(parser.add_argument_group("world"))
    _add_time(parser.add_argument_group("time"))
    _add_comparisons(parser.add_argument_group("comparisons"))
    _add_running(parser.add_argument_group("running and keeping"))


def _add_world(group: argparse._ArgumentGroup) -> None:
    world = group.add_mutually_exclusive_group()
    world.add_argument("--world", choices=(TABLETOP,), default=TABLETOP, help="the embedded world (default)")
    world.add_argument("--suite", metavar="NAME", help="a suite of LIBERO, such as libero_object")
    group.add_argument(
        "--render",
        choices=RENDERS[:2],
        default="exact",
        help="LIBERO: as in the training data (default), or simplified and several times as fast",
    )
    group.add_argument(
        "--randomize",
        choices=tuple(RANDOMIZE),
        default="none",
        help="tabletop: how much colours, light, cameras and start pose change (default: none)",
    )
    group.add_argument(
        "--wording", choices=("standard", "varied"), default="standard", help="tabletop: of instructions"
    )
    group.add_argument(
        "--swap-instructions",
        action="store_true",
        help="tell the policy to do something else than what it is judged by",
    )


def _add_time(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--delay-ms",
        type=float,
        metavar="MS",
        help="let the world go on during inference, which takes this long in its time; by default it waits",
    )
    group.add_argument(
        "--via",
        choices=("process", "ros"),
        default="process",
        help="ros: world and policy as two nodes, in lockstep over topics (default: process)",
    )
    group.add_argument("--domain-id", type=int, help="with --via ros: ROS domain (default: one of our own)")


def _add_comparisons(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--retain",
        default="pruner",
        metavar="RULE",
        help="visual tokens the decoder sees: pruner (default), all, random, random:COUNT, attention:COUNT "
        "(torch only), add:SHARE of random others, drop:SHARE at random",
    )


def _add_running(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--workers", type=int, default=1, help="processes (default: 1)")
    group.add_argument(
        "--ray", metavar="ADDRESS", help="run the workers on a Ray cluster: its address, auto or local"
    )
    group.add_argument(
        "--gpus-per-worker", type=float, default=0.0, metavar="SHARE", help="with --ray (default: 0)"
    )
    group.add_argument(
        "--log",
        type=Path,
        metavar="FILE",
        help="a JSON line per episode as it ends; the same command goes on where it was interrupted",
    )
    group.add_argument("--videos", type=Path, metavar="DIR", help="videos of failures with retained tokens")
    group.add_argument("--out", type=Path, metavar="FILE", help="write summary and episodes as JSON")
