"""`PolicyConfig`: round trip and what it refuses."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lightvla_ros.core.errors import ConfigError
from lightvla_ros.core.normalize import NormalizationStats
from lightvla_ros.core.policy_config import PolicyConfig

ENTRY = {
    "action": {"q01": [-1.0] * 7, "q99": [1.0] * 7, "mask": [True] * 6 + [False]},
    "proprio": {"q01": [-1.0] * 8, "q99": [2.0] * 8},
}


def config(**changes: Any) -> PolicyConfig:
    return PolicyConfig(statistics_key="x", statistics=NormalizationStats.from_entry(ENTRY), **changes)


def test_a_config_survives_json() -> None:
    original = config(camera_names=("top", "hand"), grid=(8, 8), jpeg=False).to_mapping()
    read = PolicyConfig.from_mapping(json.loads(json.dumps(original)))
    assert read.to_mapping() == original
    assert read.camera_names == ("top", "hand")
    assert read.statistics.action_mask.tolist() == ENTRY["action"]["mask"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("camera_names", "third_person"),
        ("camera_names", ["a", "a"]),
        ("image_size", 224.0),
        ("image_size", True),
        ("grid", [16]),
        ("jpeg", "yes"),
        ("chunk_size", 0),
        ("action_names", ["dx"]),
        ("action_names", ["dx", "dy", "dz", "drx", "dry", "drz", "gripper", "gripper"]),
        ("proprio_dim", 7),
        ("step_period_s", 0),
        ("statistics", {"action": ENTRY["action"]}),
    ],
)
def test_a_wrong_value_is_named(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=name if name != "statistics" else "proprio"):
        PolicyConfig.from_mapping({**config().to_mapping(), name: value})


def test_missing_and_unknown_fields_are_named() -> None:
    mapping = config().to_mapping()
    del mapping["jpeg"]
    with pytest.raises(ConfigError, match=r"unknown fields \['jpg'\], missing fields \['jpeg'\]"):
        PolicyConfig.from_mapping({**mapping, "jpg": True})
