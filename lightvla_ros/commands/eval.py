"""`lightvla eval`: closed-loop success of a policy in a simulated world."""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightvla_ros.commands._eval_options import DEFAULT_ENGINE, add_arguments
from lightvla_ros.commands.collect import RANDOMIZE
from lightvla_ros.core.errors import ConfigError
from lightvla_ros.sim.worlds import WorldConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from lightvla_ros.core.policy import Policy, PolicySpec
    from lightvla_ros.evaluation.closed_loop import Evaluation
    from lightvla_ros.evaluation.rollout import EpisodeResult
    from lightvla_ros.evaluation.summary import Summary

__all__ = ["HELP", "add_arguments", "run"]

HELP = "measure closed-loop success in a simulated world"

_RANDOM, _EXPERT = "random", "expert"


def run(args: argparse.Namespace) -> int:
    """Evaluate and print success by instruction; 1 when an episode could not be judged."""
    from lightvla_ros.evaluation.summary import summarize

    load = _loader(args)
    evaluation = _evaluation(args, load)
    if args.out is not None:
        # Now, not when hours of episodes wait to be written.
        args.out.parent.mkdir(parents=True, exist_ok=True)
    # Here too, so that a wrong name is told before any process starts.
    spec = _spec(load)
    results = sorted(_results(args, evaluation, spec), key=lambda result: result.number)
    summary = summarize(results)
    report = _report(args, evaluation, spec, summary)
    if args.out is not None:
        args.out.write_text(json.dumps({**report, "results": _brief(results)}) + "\n", encoding="utf-8")
    _print_table(results)
    for result in results:
        if result.error:
            print(f"episode {result.number} ({result.instruction}) could not be judged:\n{result.error}")
    print(json.dumps(report) if args.json else _sentence(spec, summary))
    return 1 if summary.errors else 0


def _results(
    args: argparse.Namespace, evaluation: Evaluation, spec: PolicySpec | None
) -> list[EpisodeResult]:
    from tqdm import tqdm

    from lightvla_ros.commands._episode_log import EpisodeLog

    log = (
        None
        if args.log is None
        else EpisodeLog(args.log, {"engine": args.engine, **_settings(args, evaluation, spec)})
    )
    results = [] if log is None else [r for r in log.results.values() if r.number < args.episodes]
    missing = list(range(args.episodes) if log is None else log.missing(args.episodes))
    with tqdm(total=args.episodes, initial=len(results), unit="episode") as progress:
        for result in _run(args, evaluation, missing):
            results.append(result)
            if log is not None:
                log.add(result)
            progress.update()
            progress.set_postfix(success=f"{sum(r.success for r in results)}/{len(results)}")
    return results


def _run(args: argparse.Namespace, evaluation: Evaluation, numbers: Sequence[int]) -> Iterator[EpisodeResult]:
    from lightvla_ros.evaluation.closed_loop import evaluate

    if not numbers:
        return iter(())
    if evaluation.world.is_libero:
        # A scene takes longer to make than to reset: one task after the other.
        tasks = len(evaluation.world.instructions())
        numbers = sorted(numbers, key=lambda number: (number % tasks, number))
    if args.via == "process":
        return evaluate(evaluation, numbers)
    from lightvla_ros.commands._eval_ros import evaluate_over_ros

    return evaluate_over_ros(
        evaluation,
        numbers,
        engine=args.engine,
        backend=args.backend,
        pruning=args.retain != "all",
        log_directory=Path("out") / "eval_ros",
        domain_id=args.domain_id,
    )


def _evaluation(args: argparse.Namespace, load: Callable[[], Policy] | None) -> Evaluation:
    from lightvla_ros.evaluation.closed_loop import Evaluation
    from lightvla_ros.sim.ray_pool import RayCluster

    looks = args.engine not in (_RANDOM, _EXPERT)
    _check_via_ros(args, looks)
    return Evaluation(
        load=load,
        world=WorldConfig(
            name=args.suite or args.world,
            render=args.render if looks else "none",
            randomize=RANDOMIZE[args.randomize],
        ),
        episodes=args.episodes,
        seed=args.seed,
        max_steps=args.max_steps,
        execution_horizon=args.execution_horizon,
        delay_s=None if args.delay_ms is None else args.delay_ms / 1e3,
        vary_wording=args.wording == "varied",
        swap_instructions=args.swap_instructions,
        videos=args.videos,
        workers=args.workers,
        cluster=None if args.ray is None else RayCluster(address=args.ray, gpus=args.gpus_per_worker),
    )


def _check_via_ros(args: argparse.Namespace, looks: bool) -> None:
    if args.via == "process":
        return
    for option, is_usual in (
        (f"--policy {args.engine}", looks),
        (f"--retain {args.retain}", args.retain in ("pruner", "all")),
        (f"--delay-ms {args.delay_ms}", args.delay_ms is None),
        (f"--workers {args.workers}", args.workers == 1),
        (f"--ray {args.ray}", args.ray is None),
        (f"--randomize {args.randomize}", args.randomize == "none"),
        (f"--videos {args.videos}", args.videos is None),
    ):
        if not is_usual:
            raise ConfigError("--via ros", got=option, expected="two nodes alone", fix="--via process")


def _loader(args: argparse.Namespace) -> Callable[[], Policy] | None:
    from lightvla_ros.evaluation.policies import load_compared_policy, load_random_policy
    from lightvla_ros.evaluation.retention import Retention

    if args.engine == _EXPERT:
        return None
    if args.engine == _RANDOM:
        return partial(load_random_policy, DEFAULT_ENGINE)
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


def _spec(load: Callable[[], Policy] | None) -> PolicySpec | None:
    if load is None:
        return None
    policy = load()
    policy.close()
    return policy.spec


def _settings(args: argparse.Namespace, evaluation: Evaluation, spec: PolicySpec | None) -> dict[str, Any]:
    """Return what decides the results, the number of episodes aside."""
    asked = ("seed", "randomize", "wording", "swap_instructions", "retain", "via", "delay_ms")
    return {
        "policy": _EXPERT if spec is None else spec.name,
        "backend": "none" if spec is None else spec.backend,
        "world": evaluation.world.name,
        "render": evaluation.world.render,
        "max_steps": evaluation.max_steps or evaluation.world.max_steps,
        "execution_horizon": evaluation.horizon,
        **{name: getattr(args, name) for name in asked},
    }


def _report(
    args: argparse.Namespace, evaluation: Evaluation, spec: PolicySpec | None, summary: Summary
) -> dict[str, Any]:
    """Return what a machine wants to know: the policy, what was asked, and how it went."""
    return {
        **_settings(args, evaluation, spec),
        **asdict(summary),
        "success": summary.success,
        "num_visual_tokens": 0 if spec is None else spec.num_visual_tokens,
    }


def _brief(results: Sequence[EpisodeResult]) -> list[dict[str, Any]]:
    """Return the episodes without what only --log keeps of every step."""
    long = ("ages_ms", "stages_ms")
    return [{name: value for name, value in asdict(result).items() if name not in long} for result in results]


def _print_table(results: Sequence[EpisodeResult]) -> None:
    from lightvla_ros.evaluation.summary import summarize

    groups: dict[str, list[EpisodeResult]] = defaultdict(list)
    for result in results:
        groups[result.instruction].append(result)
    for instruction, group in groups.items():
        summary = summarize(group)
        low, high = summary.interval
        errors = f", {summary.errors} errors" if summary.errors else ""
        judged = f"{summary.successes:3d}/{summary.episodes:<3d} [{low:4.0%}, {high:4.0%}]"
        print(f"{judged} {summary.retained_mean:6.1f} tokens  {instruction}{errors}")


def _sentence(spec: PolicySpec | None, summary: Summary) -> str:
    low, high = summary.interval
    name, tokens = ("expert", "") if spec is None else (f"{spec.name} on {spec.backend}", "")
    if spec is not None and summary.retained_max:
        tokens = (
            f", {summary.retained_mean:.1f} of {spec.num_visual_tokens} visual tokens retained "
            f"({summary.retained_min}..{summary.retained_max})"
        )
    lines = [
        f"{name}: success {summary.success:.0%} [{low:.0%}, {high:.0%}] over {summary.episodes} episodes"
        f"{tokens}; {summary.errors} errors",
        f"actions at {summary.effective_control_hz:.1f} Hz of the world's time, "
        f"{summary.stale_action_ratio:.1%} of steps without one",
    ]
    if summary.action_age is not None:
        age = summary.action_age
        lines.append(f"action age p50 {age.p50_ms:.0f}, p95 {age.p95_ms:.0f} ms from its observation")
    lines += [f"{stage:>12} p50 {t.p50_ms:.2f}, p95 {t.p95_ms:.2f} ms" for stage, t in summary.stages.items()]
    return "\n".join(lines)
