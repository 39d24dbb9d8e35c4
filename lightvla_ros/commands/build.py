"""`lightvla build`: a bundle becomes TensorRT plans for given kinds of GPU."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from lightvla_ros.commands._arguments import PRECISIONS, positive_int

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lightvla_ros.backends.length_buckets import Profile
    from lightvla_ros.backends.tensorrt.api import Flavour
    from lightvla_ros.backends.tensorrt.plan import PlanSet

HELP = "build TensorRT plans of a bundle for one or more kinds of GPU"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.add_argument("bundle", help="engine bundle: a directory or a name, for example mini")
    parser.add_argument(
        "--backend",
        choices=["tensorrt", "tensorrt-rtx"],
        help="library that builds and will run the plans (default: whichever is installed). "
        "tensorrt-rtx needs no GPU to build",
    )
    parser.add_argument(
        "--precision",
        choices=[*PRECISIONS.values(), *PRECISIONS],
        help="of the weights (default: the bundle's); another than the bundle's needs torch here",
    )
    parser.add_argument(
        "--target",
        nargs="+",
        default=["current"],
        metavar="SM",
        help="GPUs to build for, as sm_86 sm_120 (default: the one in this machine)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        help="directory of the plan set, or with several targets of the sets "
        "(default: BUNDLE/plans, where the node finds them)",
    )
    parser.add_argument(
        "--workspace-mb",
        type=positive_int,
        help="most GPU memory one kernel may use as scratch (default: no limit)",
    )
    parser.add_argument("--force", action="store_true", help="build even what is up to date")
    parser.add_argument(
        "--no-verify", action="store_true", help="do not compare the plans with torch afterwards"
    )
    parser.add_argument("--json", action="store_true", help="end with one JSON object")


def run(args: argparse.Namespace) -> int:
    """Build and say what was built."""
    from lightvla_ros.backends.loading import find_directory

    directory = find_directory(args.bundle)
    plan_sets = _build(directory, args)
    for plan_set in plan_sets:
        print(_table(plan_set))
    verified = [None if args.no_verify else _verify(args.bundle, plan_set) for plan_set in plan_sets]
    if args.json:
        print(json.dumps({**_summary(plan_sets), "verified": verified}))
    return 1 if False in verified else 0


def _build(directory: Path, args: argparse.Namespace) -> list[PlanSet]:
    from tqdm import tqdm

    from lightvla_ros.backends.tensorrt.api import load_any
    from lightvla_ros.backends.tensorrt.build import build_plans

    flavour: Flavour = args.backend or load_any().flavour
    with tqdm(leave=False, bar_format="{desc} {percentage:3.0f}%|{bar}| {elapsed}", total=1) as bar:

        def progress(what: str, done: int, total: int) -> None:
            bar.total, bar.n = total, done
            bar.set_description_str(what)

        return build_plans(
            directory,
            flavour=flavour,
            targets=args.target,
            precision=PRECISIONS.get(args.precision, args.precision),
            out=args.out,
            workspace_bytes=args.workspace_mb and args.workspace_mb << 20,
            progress=progress,
            overwrite=args.force,
        )


def _table(plan_set: PlanSet) -> str:
    built = plan_set.fingerprint
    lines = [
        f"{built.target} in {built.precision}, {built.flavour} {built.tensorrt_version}:",
        "  part     layers        MB  seconds",
        *(
            f"  {name:<8} {part.num_layers:>6} {part.num_bytes / 1e6:>9.2f} {part.seconds:>8.2f}"
            for name, part in plan_set.parts.items()
        ),
        f"  retained tokens {_ranges(plan_set.profiles['retained'])}; "
        f"prompt tokens {_ranges(plan_set.profiles['prompt'])}",
        f"  {plan_set.directory}",
    ]
    return "\n".join(lines)


def _ranges(profiles: Sequence[Profile]) -> str:
    return ", ".join(f"{profile.min}-{profile.max}" for profile in profiles)


def _summary(plan_sets: Sequence[PlanSet]) -> dict[str, Any]:
    profiles = plan_sets[0].profiles
    return {
        "plans": [str(path) for plan_set in plan_sets for path in plan_set.files],
        "profiles": [asdict(profile) for profile in profiles["retained"]],
        "prompt_profiles": [asdict(profile) for profile in profiles["prompt"]],
        "seconds": round(sum(plan_set.seconds for plan_set in plan_sets), 3),
        "directories": [str(plan_set.directory) for plan_set in plan_sets],
        "fingerprints": [
            {**asdict(plan_set.fingerprint), "digest": plan_set.fingerprint.digest} for plan_set in plan_sets
        ],
    }


def _verify(bundle: str, plan_set: PlanSet) -> bool | None:
    """Run `lightvla verify` where this machine can run the plans; None where it cannot."""
    from lightvla_ros.backends.tensorrt.runtime import machine
    from lightvla_ros.commands import verify
    from lightvla_ros.core.errors import LightVlaError

    fingerprint = plan_set.fingerprint
    arguments = [bundle, "--plans", str(plan_set.directory)]
    parser = argparse.ArgumentParser()
    verify.add_arguments(parser)
    try:
        plan_set.check_machine(machine(cast("Flavour", fingerprint.flavour)))
    except LightVlaError as e:
        print(f"plans for {fingerprint.target} are not verified here ({e.what}; got {e.got})")
        print(f"on a machine that runs them: `lightvla verify {' '.join(arguments)}`")
        return None
    try:
        return verify.run(parser.parse_args(arguments)) == 0
    except LightVlaError as e:  # no torch, or weights that were rounded and whose source it does not know
        print(f"plans for {fingerprint.target} are not verified ({e.what}; got {e.got}). Fix: {e.fix}")
        print(f"then: `lightvla verify {' '.join(arguments)}`")
        return None
