"""How to train: the mini policy from nothing on a CPU, or the published 7B models with adapters."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lightvla_ros.core.errors import ConfigError
from lightvla_ros.learn.collapse import CollapseRule
from lightvla_ros.learn.lora import LoraSettings
from lightvla_ros.learn.noise import Noise
from lightvla_ros.learn.stages import Stage
from lightvla_ros.learn.training import Settings
from lightvla_ros.model.config import PrunerConfig

CONFIG_FILE = "training.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingConfig:
    """Everything that decides what a training does; with the data, it decides every weight.

    Attributes:
        recipe: name of the preset it began as.
        demonstrations: directories of the data.
        mapping: file that says what a LeRobot data set's columns mean; None takes its own.
        start: checkpoint directory to start from; None makes a fresh mini model.
        stages: one after the other; those of no steps are left out.
        settings: what the stages share.
        pruner: what asks for visual tokens; None keeps the start's, task queries in a fresh model.
        lora: adapters, with fresh heads, on a frozen start; None trains every weight.
        collapse: when a pruned stage is given up.
        num_held_out: episodes that are not trained on.
        report_every: steps between reports.
        save_every: steps between checkpoints, a multiple of `report_every`; a stage's end is one too.
        threads: CPU threads; None lets torch choose.
        compile: have torch.compile translate vision tower and decoder, which needs a C++ compiler.

    Raises:
        ConfigError: the parts do not fit each other.
    """

    recipe: str
    demonstrations: tuple[str, ...]
    stages: tuple[Stage, ...]
    settings: Settings = field(default_factory=Settings)
    mapping: str | None = None
    start: str | None = None
    pruner: PrunerConfig | None = None
    lora: LoraSettings | None = None
    collapse: CollapseRule = field(default_factory=CollapseRule)
    num_held_out: int = 16
    report_every: int = 100
    save_every: int = 100
    threads: int | None = None
    compile: bool = False

    def __post_init__(self) -> None:
        """Refuse parts that do not fit."""
        if self.report_every < 1 or self.save_every < 1 or self.save_every % self.report_every:
            raise ConfigError(
                "--save-every",
                got=f"{self.save_every} with --report-every {self.report_every}",
                expected="a multiple, both from 1 on",
            )
        if not any(stage.steps for stage in self.stages):
            raise ConfigError("steps of the stages", got="0 in all", expected="a stage with steps")

    def write(self, directory: Path) -> None:
        """Write `training.json`."""
        text = json.dumps(asdict(self), indent=1)
        (directory / CONFIG_FILE).write_text(text + "\n", encoding="utf-8")


def read_config(directory: Path) -> TrainingConfig:
    """Read the configuration of an earlier run.

    Raises:
        ConfigError: there is none, or it is not one of this version.
    """
    path = directory / CONFIG_FILE
    try:
        return _from_values(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise ConfigError(
            str(path), got="no such file", expected="the --out directory of an earlier training"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(str(path), got=str(error), expected="the configuration of a training") from error


def _from_values(values: Mapping[str, Any]) -> TrainingConfig:
    settings = values["settings"]
    pruner, lora = values["pruner"], values["lora"]
    parts = {
        "demonstrations": tuple(values["demonstrations"]),
        "stages": tuple(Stage(**stage) for stage in values["stages"]),
        "settings": Settings(**{**settings, "noise": Noise(**settings["noise"])}),
        "pruner": pruner and PrunerConfig(**pruner),
        "lora": lora and LoraSettings(**lora),
        "collapse": CollapseRule(**values["collapse"]),
    }
    return TrainingConfig(**{**values, **parts})


def mini(demonstrations: tuple[str, ...]) -> TrainingConfig:
    """Return the recipe of the embedded policy: 4.2 million weights, all trained, on a CPU."""
    return TrainingConfig(
        recipe="mini",
        demonstrations=demonstrations,
        stages=(
            Stage(name="unpruned", prune=False, steps=6000, learning_rate=8e-4, batch_size=16),
            # The second stage fine-tunes: a full peak would undo the first.
            Stage(name="pruned", prune=True, steps=3000, learning_rate=4e-4, batch_size=16),
        ),
        threads=2,
    )


def libero_7b(demonstrations: tuple[str, ...]) -> TrainingConfig:
    """Return the reference's recipe (spec §7.1): adapters on a LIBERO suite's OpenVLA-OFT weights.

    They are an unpruned policy already, so there is no unpruned stage. Batch 8 on each of 8 GPUs; on fewer,
    accumulate. What differs from the reference: adapters and heads are float32, padding is masked, and the
    heads' gradients are synchronised.
    """
    reference: dict[str, Any] = {
        "learning_rate": 5e-4,
        "batch_size": 8,
        "warm_up": 0.0,
        "drop_at": 30_000,
        "gradient_norm": None,
    }
    return TrainingConfig(
        recipe="libero-7b",
        demonstrations=demonstrations,
        stages=(
            Stage(name="unpruned", prune=False, steps=0, **reference),
            Stage(name="pruned", prune=True, steps=40_005, **reference),
        ),
        settings=Settings(ema_decay=None, pointing_weight=0.0),
        lora=LoraSettings(),
        report_every=500,
        save_every=10_000,
    )


RECIPES = {"mini": mini, "libero-7b": libero_7b}
