"""From nothing to a policy: at the mini policy's real size, and at a small one until it succeeds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lightvla_ros.app import load_policy
from lightvla_ros.cli import main
from lightvla_ros.core.policy import Policy
from lightvla_ros.evaluation.random_policy import RandomPolicy
from lightvla_ros.evaluation.rollout import EpisodeResult, Task, run_episode
from lightvla_ros.learn.batches import action_statistics
from lightvla_ros.learn.collection import Disturbance, demonstrate, demonstration_meta
from lightvla_ros.learn.demonstrations import load_demonstrations, write_episode, write_meta
from lightvla_ros.learn.mini import initialize, mini_config, policy_section, tokenizer_json, vocabulary
from lightvla_ros.model import LightVla, VisionTowerConfig, save_checkpoint
from lightvla_ros.sim.expert import TabletopExpert
from lightvla_ros.sim.tabletop import Tabletop
from lightvla_ros.sim.worlds import WorldConfig

SCENES = (3, 4)
HORIZONS = (2, 4, 8)
IMAGE_SIZE = 112


@pytest.fixture(scope="module")
def world() -> Iterator[Tabletop]:
    world = Tabletop()
    yield world
    world.close()


def reports_of(run: Path, stage: str) -> list[dict[str, float]]:
    lines = (run / "log.jsonl").read_text().splitlines()
    return [report for report in map(json.loads, lines) if report["stage"] == stage]


@pytest.mark.slow
def test_demonstrations_become_a_pruned_policy_whose_error_falls(tmp_path: Path, world: Tabletop) -> None:
    demonstrations, run = tmp_path / "demonstrations", tmp_path / "run"
    collect = ["collect", "--episodes", "6", "--workers", "1", "--image-size", str(IMAGE_SIZE)]
    assert main([*collect, "--out", str(demonstrations)]) == 0
    options = [
        "--unpruned-steps", "50", "--pruned-steps", "20", "--report-every", "10", "--batch-size", "6",
        "--held-out", "1", "--ema-decay", "0.9", "--threads", "1",
    ]  # fmt: skip
    assert main(["train", str(demonstrations), "--out", str(run), *options]) == 0
    unpruned, pruned = reports_of(run, "unpruned"), reports_of(run, "pruned")
    assert unpruned[-1]["loss"] < 0.7 * unpruned[0]["loss"]
    assert unpruned[-1]["pointing_loss"] < 0.7 * unpruned[0]["pointing_loss"]
    assert pruned[-1]["loss"] < unpruned[0]["loss"]
    assert all(r["retained_mean"] < 128 for r in pruned)
    instruction = world.instructions()[0]
    task = Task(instruction=instruction, told=instruction, seed=1, max_steps=8)
    episode = run_episode(load_policy(run / "pruned"), world, task, execution_horizon=4)
    assert len(episode.retained) == 2 and max(episode.retained) < 128


@pytest.mark.slow
def test_a_small_policy_learns_to_succeed_where_it_was_shown(tmp_path: Path, world: Tabletop) -> None:
    """Two scenes and a tenth of the mini policy: a minute or two from fresh weights."""
    demonstrations, start, run = (tmp_path / name for name in ("demonstrations", "start", "run"))
    show_two_scenes(world, demonstrations)
    write_small_start(demonstrations, start)
    options = [
        "--unpruned-steps", "500", "--pruned-steps", "200", "--report-every", "100", "--batch-size", "16",
        "--held-out", "2", "--ema-decay", "0.98", "--threads", "2", "--learning-rate", "1.5e-3",
    ]  # fmt: skip
    assert main(["train", str(demonstrations), "--start", str(start), "--out", str(run), *options]) == 0
    assert reports_of(run, "unpruned")[-1]["loss"] < 0.4 * reports_of(run, "unpruned")[0]["loss"]
    policy = load_policy(run / "pruned")
    episodes, chance = episodes_of(policy, world), episodes_of(RandomPolicy(policy.spec), world)
    assert max(count for episode in episodes for count in episode.retained) < policy.spec.num_visual_tokens
    succeeded, by_chance = (sum(episode.success for episode in some) for some in (episodes, chance))
    assert succeeded > by_chance


def episodes_of(policy: Policy, world: Tabletop) -> list[EpisodeResult]:
    """Act in the two scenes, with chunks executed to different lengths."""
    instruction = world.instructions()[0]
    return [
        run_episode(
            policy,
            world,
            Task(instruction=instruction, told=instruction, seed=scene, max_steps=120),
            execution_horizon=horizon,
        )
        for scene in SCENES
        for horizon in HORIZONS
    ]


def show_two_scenes(world: Tabletop, directory: Path) -> None:
    """Write twelve demonstrations, each disturbed in another way."""
    write_meta(directory, demonstration_meta(WorldConfig(), IMAGE_SIZE))
    for number in range(12):
        disturb = Disturbance(np.random.default_rng(number))
        episode, _ = demonstrate(
            world,
            TabletopExpert(),
            lambda _, action, disturb=disturb: disturb(action),
            instruction=world.instructions()[0],
            seed=SCENES[number % 2],
            image_size=IMAGE_SIZE,
            max_steps=160,
        )
        write_episode(directory, number, episode)


def write_small_start(demonstrations: Path, directory: Path) -> None:
    """Write fresh weights: half the mini policy's width, half its depth, a quarter of its visual tokens."""
    data = load_demonstrations(demonstrations)
    vocab = vocabulary(data.meta.instructions)
    sizes = replace(
        mini_config(data.meta, len(vocab)),
        towers={"featurizer": VisionTowerConfig(embed_dim=96, depth=3, num_heads=3, mlp_dim=192)},
        patch_size=28,
        hidden_size=96,
        intermediate_size=192,
        num_layers=3,
        num_heads=3,
    )
    torch.manual_seed(0)
    model = LightVla(sizes, {data.meta.world: action_statistics(data)})
    initialize(model)
    save_checkpoint(model, directory, extras={"policy": policy_section(data.meta)})
    (directory / "tokenizer.json").write_text(tokenizer_json(vocab), encoding="utf-8")
