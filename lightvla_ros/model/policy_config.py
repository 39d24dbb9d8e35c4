"""Derive a `PolicyConfig` from a checkpoint: its sizes, its statistics and its own "policy" section."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from lightvla_ros.core.errors import ConfigError
from lightvla_ros.core.normalize import NormalizationStats, statistics_for
from lightvla_ros.core.policy_config import PolicyConfig, statistics_entry
from lightvla_ros.model.config import ModelConfig, read_json


def policy_config_for(
    config: ModelConfig,
    statistics: Mapping[str, Any],
    *,
    statistics_key: str | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> PolicyConfig:
    """Describe the policy around a model.

    Args:
        config: sizes of the model.
        statistics: contents of `dataset_statistics.json`.
        statistics_key: data set to use; None when there is only one.
        overrides: fields of `PolicyConfig` that differ from the published models.

    Raises:
        ConfigError: a field is unknown or contradicts the model, or the key is unknown.
    """
    key, entry = statistics_for(statistics, statistics_key)
    defaults = {f.name: f.default for f in fields(PolicyConfig) if f.default is not MISSING}
    derived = {
        "camera_names": defaults["camera_names"][: config.num_cameras],
        "image_size": config.image_size,
        "grid": (config.grid_size, config.grid_size),
        "normalizations": tuple(tower.normalization for tower in config.towers.values()),
        "action_prefix_id": config.action_prefix_id,
        "chunk_size": config.chunk_size,
        "proprio_dim": config.proprio_dim,
        "statistics_key": key,
        "statistics": statistics_entry(NormalizationStats.from_entry(entry)),
    }
    policy = PolicyConfig.from_mapping({**defaults, **derived, **(overrides or {})})
    check_policy_fits(policy, config)
    return policy


def read_policy_config(
    directory: Path, config: ModelConfig, statistics: Mapping[str, Any], statistics_key: str | None = None
) -> PolicyConfig:
    """Like `policy_config_for`, with the overrides of the checkpoint's `lightvla.json`."""
    overrides = read_json(directory / "lightvla.json", optional=True).get("policy", {})
    return policy_config_for(config, statistics, statistics_key=statistics_key, overrides=overrides)


def check_policy_fits(policy: PolicyConfig, config: ModelConfig) -> None:
    """Raise `ConfigError` where a policy contradicts the model it is for."""
    pairs = {
        "number of camera_names": (len(policy.camera_names), config.num_cameras),
        "image_size": (policy.image_size, config.image_size),
        "grid": (policy.grid, (config.grid_size, config.grid_size)),
        "number of normalizations": (len(policy.normalizations), len(config.towers)),
        "action_prefix_id": (policy.action_prefix_id, config.action_prefix_id),
        "chunk_size": (policy.chunk_size, config.chunk_size),
        "number of action_names": (len(policy.action_names), config.action_dim),
        "proprio_dim": (policy.proprio_dim, config.proprio_dim),
    }
    for name, (got, expected) in pairs.items():
        if got != expected:
            raise ConfigError(
                f"policy section, {name}",
                got=got,
                expected=f"{expected}, as in the model",
                fix="correct the 'policy' section of lightvla.json",
            )
