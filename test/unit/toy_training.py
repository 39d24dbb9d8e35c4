"""Demonstrations of noise and a network small enough to be trained on them in moments."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from lightvla_ros.learn.demonstrations import DemonstrationMeta, Demonstrations
from lightvla_ros.learn.mini import mini_config
from lightvla_ros.model import ModelConfig, VisionTowerConfig

INSTRUCTIONS = ("take the cup", "take the red cup")


def make_demonstrations(lengths: tuple[int, ...] = (12, 9), image_size: int = 16) -> Demonstrations:
    """Random pictures, states and actions of two instructions."""
    rng = np.random.default_rng(0)
    steps = sum(lengths)
    actions = rng.uniform(-0.5, 0.5, (steps, 7)).astype(np.float32)
    actions[:, 5] = 0.0
    actions[:, 6] = rng.integers(0, 2, steps)
    return Demonstrations(
        meta=DemonstrationMeta(
            world="toy",
            cameras=("third_person", "wrist"),
            image_size=image_size,
            action_names=("dx", "dy", "dz", "drx", "dry", "drz", "gripper"),
            proprio_dim=8,
            step_period_s=0.05,
            instructions=INSTRUCTIONS,
        ),
        images=rng.integers(0, 256, (steps, 2, image_size, image_size, 3), dtype=np.uint8),
        proprio=rng.uniform(-1, 1, (steps, 8)).astype(np.float32),
        actions=actions,
        instruction_index=np.repeat(np.arange(len(lengths)) % 2, lengths).astype(np.int64),
        episode_starts=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
    )


def toy_sizes(meta: DemonstrationMeta, vocab_size: int) -> ModelConfig:
    """The mini model's structure, a few ten thousand weights."""
    return replace(
        mini_config(meta, vocab_size),
        towers={"featurizer": VisionTowerConfig(embed_dim=32, depth=2, num_heads=2, mlp_dim=64)},
        hidden_size=32,
        intermediate_size=64,
        num_layers=2,
        num_heads=2,
    )
