"""What the time that inference takes does to success: a table of docs/results.md.

    python bench/delay.py [--engine mini] [--suite libero_object]

The world goes on while the policy thinks; how long that takes is given, in the world's time, so the result is
the same on every machine. Each schedule of the node is compared under each delay in the same episodes.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from tables import put_table
from tqdm import tqdm

from lightvla_ros.core.output_config import ScheduleConfig
from lightvla_ros.evaluation.closed_loop import Evaluation, evaluate
from lightvla_ros.evaluation.policies import load_compared_policy
from lightvla_ros.evaluation.summary import summarize
from lightvla_ros.sim.worlds import TABLETOP, WorldConfig

DELAYS_MS = (0.0, 50.0, 100.0, 200.0, 500.0)
# What the table calls it -> how chunks follow one another, and steps of each executed
SCHEDULES = {
    "continuous, 2 steps": ("continuous", 2),
    "continuous, 8 steps": ("continuous", 8),
    "sync, 8 steps": ("sync", 8),
}
RESULTS = Path("docs/delays.json")
PAGE = Path("docs/results.md")


def main() -> None:
    """Measure every pair and write table and JSON."""
    args = _arguments()
    rows = [_measured(args, delay_ms, name) for name in SCHEDULES for delay_ms in DELAYS_MS]
    about = {"engine": args.engine, "world": args.suite or TABLETOP, "seed": args.seed}
    RESULTS.write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n", encoding="utf-8")
    table = _table(rows)
    print(table)
    put_table(PAGE, "bench/delay.py", table)


def _measured(args: argparse.Namespace, delay_ms: float, name: str) -> dict[str, Any]:
    mode, horizon = SCHEDULES[name]
    evaluation = Evaluation(
        load=partial(load_compared_policy, args.engine, num_threads=1),
        world=WorldConfig(name=args.suite or TABLETOP, render="fast"),
        episodes=args.episodes,
        seed=args.seed,
        execution_horizon=horizon,
        delay_s=delay_ms / 1e3,
        schedule=ScheduleConfig(mode=mode),
        workers=args.workers,
    )
    label = f"{name}, {delay_ms:g} ms"
    results = list(tqdm(evaluate(evaluation), total=args.episodes, desc=label, mininterval=5))
    summary = summarize(results)
    return {"schedule": name, "delay_ms": delay_ms, **asdict(summary), "success": summary.success}


def _table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "| schedule | delay | success | 95 % interval | steps to success | `effective_control_hz` "
        "| `stale_action_ratio` | action age p50 / p95 |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        low, high = row["interval"]
        age, steps = row["action_age"], row["steps_mean"]
        lines.append(
            f"| {row['schedule']} | {row['delay_ms']:g} ms | {row['successes']}/{row['episodes']} "
            f"| {low:.0%} to {high:.0%} | {'' if steps is None else f'{steps:.0f}'} "
            f"| {row['effective_control_hz']:.1f} | {row['stale_action_ratio']:.0%} "
            f"| {'' if age is None else '{p50_ms:.0f} / {p95_ms:.0f} ms'.format(**age)} |"
        )
    return "\n".join(lines)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--engine", default="mini", help="bundle or checkpoint")
    parser.add_argument("--suite", help="of LIBERO, instead of the tabletop")
    parser.add_argument("--episodes", type=int, default=80, help="of each row")
    parser.add_argument("--seed", type=int, default=900_000, help="of the first episode")
    parser.add_argument("--workers", type=int, default=2, help="processes")
    return parser.parse_args()


if __name__ == "__main__":
    main()
