"""`lightvla eval`: closed-loop success of a policy in a simulated world."""

from __future__ import annotations

import argparse
import json
import statistics
from collections import defaultdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightvla_ros.core.policy import PolicySpec
    from lightvla_ros.learn.evaluation import EpisodeResult

HELP = "measure closed-loop success in a simulated world"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("--world", choices=("tabletop",), default="tabletop", help="simulated world")
    parser.add_argument("--engine", default="mini", help="bundle or checkpoint: a name or a directory")
    parser.add_argument("--backend", default="auto", help="auto, torch or onnxruntime")
    parser.add_argument("--episodes", type=int, default=40, help="episodes (default: 40)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the first episode (default: 0)")
    parser.add_argument("--max-steps", type=int, default=250, help="steps until failure (default: 250)")
    parser.add_argument(
        "--execution-horizon",
        type=int,
        default=2,
        help="steps of a chunk executed per inference (default: 2, as in the node)",
    )
    parser.add_argument("--json", action="store_true", help="end with one JSON object")


def run(args: argparse.Namespace) -> int:
    """Evaluate and print success by instruction."""
    from tqdm import tqdm

    from lightvla_ros.app import load_policy
    from lightvla_ros.learn.evaluation import evaluate_policy
    from lightvla_ros.sim.tabletop import Tabletop

    policy = load_policy(args.engine, backend=args.backend)
    world = Tabletop()
    results: list[EpisodeResult] = []
    with tqdm(total=args.episodes, unit="episode") as progress:
        for result in evaluate_policy(
            policy,
            world,
            episodes=args.episodes,
            seed=args.seed,
            max_steps=args.max_steps,
            execution_horizon=args.execution_horizon,
        ):
            results.append(result)
            progress.update()
            progress.set_postfix(success=f"{sum(r.success for r in results)}/{len(results)}")
    summary = summarize(results, policy.spec)
    world.close()
    policy.close()
    _print_table(results)
    print(json.dumps(summary) if args.json else _sentence(summary))
    return 0


def summarize(results: list[EpisodeResult], spec: PolicySpec) -> dict[str, Any]:
    """Return the machine-readable summary of an evaluation."""
    from lightvla_ros.learn.evaluation import wilson_interval

    successes = sum(result.success for result in results)
    retained = [count for result in results for count in result.retained]
    return {
        "policy": spec.name,
        "backend": spec.backend,
        "episodes": len(results),
        "success": successes / max(len(results), 1),
        "interval": list(wilson_interval(successes, len(results))),
        "retained_mean": statistics.fmean(retained) if retained else 0.0,
        "retained_min": min(retained, default=0),
        "retained_max": max(retained, default=0),
        "num_visual_tokens": spec.num_visual_tokens,
    }


def _print_table(results: list[EpisodeResult]) -> None:
    groups: dict[str, list[EpisodeResult]] = defaultdict(list)
    for result in results:
        groups[result.instruction].append(result)
    for instruction, group in groups.items():
        print(f"{sum(r.success for r in group):3d}/{len(group):<3d} {instruction}")


def _sentence(summary: dict[str, Any]) -> str:
    low, high = summary["interval"]
    return (
        f"{summary['policy']} on {summary['backend']}: success {summary['success']:.0%} "
        f"[{low:.0%}, {high:.0%}] over {summary['episodes']} episodes, "
        f"{summary['retained_mean']:.1f} of {summary['num_visual_tokens']} visual tokens retained "
        f"({summary['retained_min']}..{summary['retained_max']})"
    )
