"""From nothing to a policy that acts, at the mini policy's real size, in about a minute."""

import json
from pathlib import Path

import pytest

from lightvla_ros.app import load_policy
from lightvla_ros.cli import main
from lightvla_ros.evaluation.rollout import run_episode
from lightvla_ros.sim.tabletop import Tabletop


@pytest.mark.slow
def test_demonstrations_become_a_pruned_policy_whose_error_falls(tmp_path: Path) -> None:
    demonstrations, run = tmp_path / "demonstrations", tmp_path / "run"
    collect = ["collect", "--episodes", "6", "--workers", "1", "--image-size", "112"]
    assert main([*collect, "--out", str(demonstrations)]) == 0
    options = [
        "--unpruned-steps", "50", "--pruned-steps", "20", "--report-every", "10", "--batch-size", "6",
        "--held-out", "1", "--ema-decay", "0.9", "--threads", "1",
    ]  # fmt: skip
    assert main(["train", str(demonstrations), "--out", str(run), *options]) == 0
    reports = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    unpruned, pruned = ([r for r in reports if r["stage"] == stage] for stage in ("unpruned", "pruned"))
    assert unpruned[-1]["loss"] < 0.7 * unpruned[0]["loss"]
    assert unpruned[-1]["pointing_loss"] < 0.7 * unpruned[0]["pointing_loss"]
    assert pruned[-1]["loss"] < unpruned[0]["loss"]
    assert all(r["retained_mean"] < 128 for r in pruned)
    policy, world = load_policy(run / "pruned"), Tabletop(image_size=112)
    instruction = world.instructions()[0]
    episode = run_episode(policy, world, instruction=instruction, seed=1, max_steps=8, execution_horizon=4)
    assert len(episode.retained) == 2 and max(episode.retained) < 128
