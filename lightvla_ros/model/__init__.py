"""The LightVLA network in PyTorch: the reference every engine is compared with."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from lightvla_ros.model.config import ModelConfig, PrunerConfig, VisionTowerConfig

if TYPE_CHECKING:
    from lightvla_ros.model.checkpoint import load_checkpoint, save_checkpoint
    from lightvla_ros.model.lightvla import LightVla, LightVlaOutput
    from lightvla_ros.model.pruner import TokenPruner

__all__ = [
    "LightVla",
    "LightVlaOutput",
    "ModelConfig",
    "PrunerConfig",
    "TokenPruner",
    "VisionTowerConfig",
    "load_checkpoint",
    "save_checkpoint",
]

_HOMES = {
    "LightVla": "lightvla",
    "LightVlaOutput": "lightvla",
    "TokenPruner": "pruner",
    "load_checkpoint": "checkpoint",
    "save_checkpoint": "checkpoint",
}


def __getattr__(name: str) -> object:
    # Loaded on first use: a runtime without torch still reads the sizes of the model it runs.
    if name in _HOMES:
        return getattr(import_module(f"lightvla_ros.model.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
