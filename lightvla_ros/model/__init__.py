"""The LightVLA network in PyTorch: the reference every engine is compared with."""

from lightvla_ros.model.checkpoint import load_checkpoint, save_checkpoint
from lightvla_ros.model.config import ModelConfig, VisionTowerConfig
from lightvla_ros.model.lightvla import LightVla, LightVlaOutput
from lightvla_ros.model.pruner import TokenPruner

__all__ = [
    "LightVla",
    "LightVlaOutput",
    "ModelConfig",
    "TokenPruner",
    "VisionTowerConfig",
    "load_checkpoint",
    "save_checkpoint",
]
