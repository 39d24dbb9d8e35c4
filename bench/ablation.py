"""What pruning does to success, in closed loop: the tables of docs/results.md.

    python bench/ablation.py DATA... --start UNPRUNED_CHECKPOINT --out DIRECTORY

From one unpruned checkpoint every variant is trained for the same number of steps on the same batches, then
acts in the same held-out episodes of the standard tabletop scene. What needs no training (random tokens,
attention) is applied to a variant's weights. Latencies of all policies are measured together, observation by
observation. What is already in DIRECTORY is not done again.
"""
# long: trains, evaluates and tabulates one comparison, of which no part has another user.

from __future__ import annotations

import argparse
import json
import os
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tables import put_table
from tqdm import tqdm

from lightvla_ros.backends.export import export_bundle
from lightvla_ros.backends.flops import stage_flops
from lightvla_ros.backends.loading import load_engine
from lightvla_ros.core.observation import Observation
from lightvla_ros.core.policy import Policy
from lightvla_ros.evaluation.closed_loop import Evaluation, evaluate
from lightvla_ros.evaluation.policies import load_compared_policy, load_random_policy
from lightvla_ros.evaluation.retention import Retention
from lightvla_ros.evaluation.summary import summarize
from lightvla_ros.learn.collapse import CollapseError
from lightvla_ros.learn.data import TrainingData, load_data
from lightvla_ros.learn.network import make_network
from lightvla_ros.learn.noise import Noise
from lightvla_ros.learn.recipes import TrainingConfig, mini
from lightvla_ros.learn.run import Run, make_accelerator, train
from lightvla_ros.learn.stages import Stage
from lightvla_ros.model import PrunerConfig, load_checkpoint
from lightvla_ros.model.config import ModelConfig
from lightvla_ros.model.policy_config import read_policy_config

UNPRUNED = "unpruned"
# Words of a standard sentence, and BOS.
PROMPT_TOKENS = 13
MODEL_STAGES = ("vision", "pruner", "decoder")


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A training: everything else is the same for all."""

    prune: bool = True
    noise: Noise = field(default_factory=Noise)
    pruner: PrunerConfig | None = None


VARIANTS = {
    "lightvla": Variant(),
    UNPRUNED: Variant(prune=False),
    "vision-queries": Variant(pruner=PrunerConfig(kind="vision_queries")),
    "decoder-queries": Variant(pruner=PrunerConfig(kind="decoder_queries")),
    "no-noise": Variant(noise=Noise(kind="none")),
    "fixed-noise": Variant(noise=Noise(schedule="fixed")),
}


@dataclass(frozen=True, kw_only=True)
class Row:
    """A policy of the table.

    Attributes:
        label: in the table.
        variant: whose weights; None acts at random.
        retain: rule for the tokens; COUNT is LightVLA's rounded mean.
        swap: tell it to do something else than what it is judged by.
        episodes: fewer than the others, where nearly every one lasts to the step limit.
        backend: attention is seen in torch only.
    """

    label: str
    variant: str | None
    retain: str = "pruner"
    swap: bool = False
    episodes: int | None = None
    backend: str = "onnxruntime"


ROWS = {
    "lightvla": Row(label="LightVLA", variant="lightvla"),
    UNPRUNED: Row(label="not pruned (as OpenVLA-OFT)", variant=UNPRUNED, retain="all"),
    "vision-queries": Row(label="LightVLA\\*, queries at the vision encoder", variant="vision-queries"),
    "decoder-queries": Row(
        label="LightVLA\\*, queries in the first decoder layer", variant="decoder-queries"
    ),
    "no-noise": Row(label="LightVLA without noise", variant="no-noise"),
    "fixed-noise": Row(label="LightVLA, noise not falling", variant="fixed-noise"),
    "add": Row(label="LightVLA and as many random tokens", variant="lightvla", retain="add:1"),
    "drop": Row(label="LightVLA less 10 % of its tokens", variant="lightvla", retain="drop:0.1"),
    "random": Row(
        label="not pruned in training, random tokens", variant=UNPRUNED, retain="random:COUNT", episodes=80
    ),
    "attention": Row(
        label="not pruned in training, top attention after layer 2",
        variant=UNPRUNED,
        retain="attention:COUNT",
        episodes=80,
        backend="torch",
    ),
    "swapped": Row(label="LightVLA told another instruction", variant="lightvla", swap=True, episodes=80),
    "random-lightvla": Row(
        label="LightVLA's count, random tokens", variant="lightvla", retain="random", episodes=40
    ),
    "chance": Row(label="random actions", variant=None, episodes=40),
}


def main() -> None:
    """Train, evaluate, time, and write results and table."""
    args = _arguments()
    torch.set_num_threads(args.threads)
    _train_variants(args)
    for name in VARIANTS:
        if (args.out / name / "bundle").is_dir() or not _checkpoint(args.out, name).is_dir():
            continue
        _export(_checkpoint(args.out, name), args.out / name / "bundle")
    usable = {
        key: row
        for key, row in ROWS.items()
        if row.variant is None or (args.out / row.variant / "bundle").is_dir()
    }
    rows = {key: _evaluated(args, key, row) for key, row in usable.items()}
    times = _model_times(args, rows)
    for key, row in rows.items():
        row["model_ms"] = times.get(key)
        # Each against the unpruned policy on the same backend.
        reference = times["unpruned-torch" if ROWS[key].backend == "torch" else UNPRUNED]
        row["latency_ratio"] = times[key] / reference if key in times else None
    results = {
        "steps": args.steps,
        "batch_size": args.batch_size,
        "start": args.start.name,
        "seed": args.seed,
        "cpus": os.cpu_count(),
        "rows": rows,
    }
    args.results.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    text = table(rows)
    print(text)
    put_table(args.results.with_suffix(".md"), "bench/ablation.py", text)


def table(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the Markdown table of results."""
    lines = [
        "| policy | success | 95 % interval | visual tokens, mean ± s.d. (range) | MFLOP | model time |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows.values():
        low, high = row["interval"]
        tokens = (
            f"{row['retained_mean']:.1f} ± {row['retained_std']:.1f} "
            f"({row['retained_min']}..{row['retained_max']})"
        )
        ratio = row["latency_ratio"]
        cells = (
            row["label"],
            f"{row['successes']}/{row['episodes']} = {row['success']:.1%}",
            f"{low:.0%} to {high:.0%}",
            tokens if row["mflop"] else "",
            f"{row['mflop']:.0f}" if row["mflop"] else "",
            f"{ratio:.2f}" if ratio else "",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


# -- training ---------------------------------------------------------------------------------------


def _train_variants(args: argparse.Namespace) -> None:
    data: TrainingData | None = None
    for name, variant in VARIANTS.items():
        directory = args.out / name
        if _checkpoint(args.out, name).is_dir():
            continue
        config = _config(args, variant)
        data = data or load_data(config)
        run = Run(config=config, data=data, model=make_network(config, data.sizes, data.statistics))
        directory.mkdir(parents=True, exist_ok=True)
        config.write(directory)
        progress = train(run, directory, accelerator=make_accelerator())
        try:
            for _ in tqdm(progress, total=args.steps, desc=name, unit="step", mininterval=5):
                pass
        except CollapseError as error:
            # A result, too: the last checkpoint is evaluated.
            (directory / "collapse.txt").write_text(f"{error}\n", encoding="utf-8")


def _config(args: argparse.Namespace, variant: Variant) -> TrainingConfig:
    preset = mini(tuple(args.data))
    # Pointing belongs to the first stage; a variant with a second task would not be comparable.
    settings = replace(preset.settings, noise=variant.noise, pointing_weight=0.0)
    stage = Stage(
        name="pruned" if variant.prune else UNPRUNED,
        prune=variant.prune,
        steps=args.steps,
        learning_rate=preset.stages[1].learning_rate,
        batch_size=args.batch_size,
    )
    return replace(
        preset,
        start=str(args.start),
        stages=(stage,),
        settings=settings,
        pruner=variant.pruner,
        threads=args.threads,
        report_every=min(250, args.steps),
        save_every=min(250, args.steps),
        compile=args.compile,
    )


def _checkpoint(directory: Path, variant: str) -> Path:
    return directory / variant / ("pruned" if VARIANTS[variant].prune else UNPRUNED)


def _export(checkpoint: Path, bundle: Path) -> None:
    model = load_checkpoint(checkpoint)
    policy = read_policy_config(checkpoint, model.config, model.statistics)
    export_bundle(
        model, policy, bundle, tokenizer=(checkpoint / "tokenizer.json").read_text(encoding="utf-8")
    )


# -- evaluation -------------------------------------------------------------------------------------


def _evaluated(args: argparse.Namespace, key: str, row: Row) -> dict[str, Any]:
    path = args.out / "rows" / f"{key}.json"
    if path.is_file():
        kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return kept
    retain = row.retain
    if "COUNT" in retain:
        retain = retain.replace("COUNT", str(_count(args.out)))
    episodes = min(args.episodes, row.episodes or args.episodes)
    evaluation = Evaluation(
        load=_loader(args.out, row, retain),
        episodes=episodes,
        seed=args.seed,
        swap_instructions=row.swap,
        workers=args.workers,
    )
    progress = tqdm(evaluate(evaluation), total=episodes, desc=key, unit="episode", mininterval=5)
    results = sorted(progress, key=lambda result: result.seed)
    summary = summarize(results)
    by_instruction: dict[str, list[bool]] = defaultdict(list)
    for result in results:
        by_instruction[result.instruction].append(result.success)
    report = {
        "label": row.label,
        "variant": row.variant,
        "retain": retain,
        "backend": row.backend,
        **asdict(summary),
        "success": summary.success,
        "by_instruction": {text: f"{sum(done)}/{len(done)}" for text, done in by_instruction.items()},
        "mflop": _mflop(args.out, row, summary.retained_mean),
        "collapsed": row.variant is not None and (args.out / row.variant / "collapse.txt").is_file(),
    }
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return report


def _loader(directory: Path, row: Row, retain: str) -> Any:
    if row.variant is None:
        return partial(load_random_policy, directory / "lightvla" / "bundle")
    return partial(
        load_compared_policy,
        directory / row.variant / "bundle",
        backend=row.backend,
        retention=Retention.parse(retain),
        num_threads=1,
    )


def _count(directory: Path) -> int:
    """Return how many tokens LightVLA retains; its row is the first."""
    row = json.loads((directory / "rows" / "lightvla.json").read_text(encoding="utf-8"))
    return round(row["retained_mean"])


def _mflop(directory: Path, row: Row, retained: float) -> float | None:
    if row.variant is None:
        return None
    config: ModelConfig = load_engine(directory / row.variant / "bundle", num_threads=1).model
    flops = stage_flops(config, round(retained), PROMPT_TOKENS)
    decoder, pruner = flops.decoder, flops.pruner
    if row.retain.startswith("attention"):
        share = 2 / config.num_layers  # of the layers see every token
        decoder = round(
            (1 - share) * decoder + share * stage_flops(config, config.num_patches, PROMPT_TOKENS).decoder
        )
    if not Retention.parse(row.retain.replace("COUNT", "1")).asks_pruner:
        pruner = 0
    return (flops.vision + pruner + decoder) / 1e6


def _model_times(args: argparse.Namespace, rows: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Return the median time of vision, pruner and decoder, ms, of each policy, on one thread."""
    torch.set_num_threads(1)
    policies: dict[str, Policy] = {
        key: _loader(args.out, ROWS[key], row["retain"])() for key, row in rows.items() if row["variant"]
    }
    in_torch = replace(ROWS[UNPRUNED], backend="torch")
    policies["unpruned-torch"] = _loader(args.out, in_torch, in_torch.retain)()
    samples: dict[str, list[float]] = defaultdict(list)
    for observation in _observations(policies["lightvla"], args.seed):
        for key, policy in policies.items():
            for _ in range(3):
                timings = policy.predict_chunk(observation).timings_ms
            samples[key].append(sum(timings[stage] for stage in MODEL_STAGES))
    for policy in policies.values():
        policy.close()
    return {key: statistics.median(values) for key, values in samples.items()}


def _observations(policy: Policy, seed: int) -> Sequence[Observation]:
    """Return what a policy sees at every tenth step of some episodes."""
    from lightvla_ros.sim.tabletop import Tabletop

    seen = []
    with closing(Tabletop()) as world:
        for number, instruction in enumerate(world.instructions()):
            state = world.reset(instruction=instruction, seed=seed + number)
            for step in range(80):
                observation = Observation(
                    images=state.images, proprio=state.proprio, instruction=instruction, stamp_ns=0
                )
                if step % 10 == 0:
                    seen.append(observation)
                action = policy.predict_chunk(observation).actions[0]
                world.step(action.astype(np.float64))
                state = world.observe()
    return seen


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", nargs="+", help="demonstrations")
    parser.add_argument("--start", type=Path, required=True, help="unpruned checkpoint")
    parser.add_argument("--out", type=Path, required=True, help="working directory")
    parser.add_argument("--steps", type=int, default=2000, help="of each variant")
    parser.add_argument("--batch-size", type=int, default=16, help="chunks per step")
    parser.add_argument("--episodes", type=int, default=200, help="of each row")
    parser.add_argument("--seed", type=int, default=900_000, help="of the first episode")
    parser.add_argument("--workers", type=int, default=2, help="processes that evaluate")
    parser.add_argument("--threads", type=int, default=2, help="that train")
    parser.add_argument("--compile", action="store_true", help="as `lightvla train --compile`")
    parser.add_argument("--results", type=Path, default=Path("docs/results.json"), help="JSON to write")
    return parser.parse_args()


if __name__ == "__main__":
    main()
