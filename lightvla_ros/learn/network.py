"""The network a run trains: fresh or from a checkpoint, with the pruner and the adapters it is to have."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from lightvla_ros.core.errors import ConfigError
from lightvla_ros.learn.lora import add_adapters
from lightvla_ros.learn.mini import initialize
from lightvla_ros.learn.recipes import TrainingConfig
from lightvla_ros.model import LightVla, ModelConfig, load_checkpoint
from lightvla_ros.model.heads import L1RegressionHead, ProprioProjector


def make_network(config: TrainingConfig, sizes: ModelConfig, statistics: Mapping[str, Any]) -> LightVla:
    """Build or load the network; its fresh weights follow from the seed.

    Args:
        config: of the run.
        sizes: of the network.
        statistics: of the demonstrations; the network's own, if it is loaded, are left behind.

    Raises:
        CheckpointError: `start` is not a usable checkpoint.
    """
    torch.manual_seed(config.settings.seed)
    if config.start is None:
        model = LightVla(sizes, statistics)
        initialize(model)
    else:
        # A frozen base is kept as small as published; what is trained is float32.
        dtype = torch.bfloat16 if config.lora else torch.float32
        model = load_checkpoint(Path(config.start), dtype=dtype)
        model.statistics = dict(statistics)
    return adapted(model, config)


def adapted(model: LightVla, config: TrainingConfig) -> LightVla:
    """Give a network the pruner, heads and adapters of a configuration, in place."""
    if config.pruner is not None and config.pruner != model.config.pruner:
        model.replace_pruner(config.pruner)
    if config.lora is not None:
        # The published heads belong to another reading of the rows (spec §7.1, §3.7); ours reads what it
        # trains.
        model.config = replace(model.config, action_row_offset=0)
        model.action_head = L1RegressionHead(model.config)
        model.proprio_projector = ProprioProjector(model.config)
        add_adapters(model, config.lora)
    return model.train()


def require_compiler() -> None:
    """Refuse to compile where it cannot work, before anything is loaded.

    Raises:
        ConfigError: torch.compile would translate for the CPU and there is no C++ compiler.
    """
    compiler = os.environ.get("CXX", "g++")
    if not torch.cuda.is_available() and shutil.which(compiler) is None:
        raise ConfigError(
            "--compile",
            got=f"no {compiler}",
            expected="a C++ compiler",
            fix="apt install g++, or leave --compile out",
        )


def compile_network(model: LightVla) -> None:
    """Translate what takes the time in place; the state dict and copies of the model stay as they are."""
    # The parts rather than a whole pass: torch 2.13 loses the gradients of a pass with the pruner.
    model.vision_backbone.compile()
    model.projector.compile()
    model.language_model.model.compile()
