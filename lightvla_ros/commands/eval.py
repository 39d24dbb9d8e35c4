"""`lightvla eval`: closed-loop success of a policy in a simulated world."""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightvla_ros.commands.collect import RANDOMIZE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lightvla_ros.core.policy import Policy, PolicySpec
    from lightvla_ros.evaluation.rollout import EpisodeResult
    from lightvla_ros.evaluation.summary import Summary

HELP = "measure closed-loop success in a simulated world"

_RANDOM = "random"
_DEFAULT_ENGINE = "mini"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's options."""
    parser.add_argument("--world", choices=("tabletop",), default="tabletop", help="simulated world")
    parser.add_argument(
        "--engine",
        default=_DEFAULT_ENGINE,
        help="bundle or checkpoint: a name or a directory; random for a policy that looks at nothing",
    )
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
    parser.add_argument("--workers", type=int, default=1, help="processes (default: 1)")
    harder = parser.add_argument_group("what is asked")
    harder.add_argument(
        "--randomize",
        choices=tuple(RANDOMIZE),
        default="none",
        help="how much colours, light, cameras and start pose change between episodes (default: none)",
    )
    harder.add_argument(
        "--wording", choices=("standard", "varied"), default="standard", help="of instructions"
    )
    harder.add_argument(
        "--swap-instructions",
        action="store_true",
        help="tell the policy to do something else than what it is judged by",
    )
    compared = parser.add_argument_group("comparisons")
    compared.add_argument(
        "--retain",
        default="pruner",
        metavar="RULE",
        help="visual tokens the decoder sees: pruner (default), all, random, random:COUNT, attention:COUNT "
        "(torch only), add:SHARE of random others, drop:SHARE at random",
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="write summary and episodes as JSON")
    parser.add_argument("--json", action="store_true", help="end with one JSON object")


def run(args: argparse.Namespace) -> int:
    """Evaluate and print success by instruction."""
    from tqdm import tqdm

    from lightvla_ros.evaluation.closed_loop import Evaluation, evaluate
    from lightvla_ros.evaluation.summary import summarize

    load = _loader(args)
    # Here too, so that a wrong name is told before any process starts.
    policy = load()
    spec = policy.spec
    policy.close()
    evaluation = Evaluation(
        load=load,
        episodes=args.episodes,
        seed=args.seed,
        max_steps=args.max_steps,
        execution_horizon=args.execution_horizon,
        randomize=RANDOMIZE[args.randomize],
        vary_wording=args.wording == "varied",
        swap_instructions=args.swap_instructions,
        workers=args.workers,
    )
    results: list[EpisodeResult] = []
    with tqdm(total=args.episodes, unit="episode") as progress:
        for result in evaluate(evaluation):
            results.append(result)
            progress.update()
            progress.set_postfix(success=f"{sum(r.success for r in results)}/{len(results)}")
    results.sort(key=lambda result: result.seed)
    summary = summarize(results)
    report = _report(args, spec, summary)
    if args.out is not None:
        episodes = [asdict(result) for result in results]
        args.out.write_text(json.dumps({**report, "results": episodes}) + "\n", encoding="utf-8")
    _print_table(results)
    print(json.dumps(report) if args.json else _sentence(spec, summary))
    return 0


def _loader(args: argparse.Namespace) -> Callable[[], Policy]:
    from lightvla_ros.evaluation.policies import load_compared_policy, load_random_policy
    from lightvla_ros.evaluation.retention import Retention

    if args.engine == _RANDOM:
        return partial(load_random_policy, _DEFAULT_ENGINE)
    retention = Retention.parse(args.retain)
    # Several processes fill the cores by themselves.
    num_threads = 1 if args.workers > 1 else None
    return partial(
        load_compared_policy,
        args.engine,
        backend=args.backend,
        retention=retention,
        num_threads=num_threads,
    )


def _report(args: argparse.Namespace, spec: PolicySpec, summary: Summary) -> dict[str, Any]:
    """Return what a machine wants to know: the policy, what was asked, and how it went."""
    asked = ("seed", "max_steps", "execution_horizon", "randomize", "wording", "swap_instructions", "retain")
    return {
        "policy": spec.name,
        "backend": spec.backend,
        **{name: getattr(args, name) for name in asked},
        **asdict(summary),
        "success": summary.success,
        "num_visual_tokens": spec.num_visual_tokens,
    }


def _print_table(results: Sequence[EpisodeResult]) -> None:
    groups: dict[str, list[EpisodeResult]] = defaultdict(list)
    for result in results:
        groups[result.instruction].append(result)
    for instruction, group in groups.items():
        print(f"{sum(r.success for r in group):3d}/{len(group):<3d} {instruction}")


def _sentence(spec: PolicySpec, summary: Summary) -> str:
    low, high = summary.interval
    return (
        f"{spec.name} on {spec.backend}: success {summary.success:.0%} [{low:.0%}, {high:.0%}] over "
        f"{summary.episodes} episodes, {summary.retained_mean:.1f} of {spec.num_visual_tokens} visual tokens "
        f"retained ({summary.retained_min}..{summary.retained_max})"
    )
