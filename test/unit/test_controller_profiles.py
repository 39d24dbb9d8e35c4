"""Each controller profile lies over config/policy.yaml and fits the policies it is for."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from lightvla_ros.core.config import NodeConfig, parameters, with_values
from lightvla_ros.core.errors import ConfigError
from lightvla_ros.core.limits import ActionLimiter
from lightvla_ros.core.policy import PolicySpec
from lightvla_ros.core.policy_fit import check_actions

ROOT = Path(__file__).parents[2]
PROFILES = sorted((ROOT / "config" / "controllers").glob("*.yaml"))
EXAMPLES = ("x", "y", "z", "rx", "ry", "rz"), tuple(f"joint_{index}" for index in range(1, 7))


def flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, object]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def values(text: str) -> dict[str, object]:
    content = yaml.safe_load(text)
    (node,) = content
    assert node == "/**"
    return dict(flat(content[node]["ros__parameters"]))


def load(path: Path) -> NodeConfig:
    return with_values(NodeConfig(), values(path.read_text()))


def uncommented(path: Path) -> str:
    """What a user gets who takes every example in: `#name: value`, without a blank before the name."""
    return re.sub(r"^( +)#( *[a-z_]+:)", r"\1\2", path.read_text(), flags=re.MULTILINE)


def spec(config: NodeConfig) -> PolicySpec:
    names = EXAMPLES[config.schedule.actions == "positions"]
    return PolicySpec(
        name="example",
        backend="test",
        camera_names=("third_person", "wrist"),
        grid=(4, 4),
        chunk_size=8,
        action_names=(*names, "gripper"),
        proprio_dim=8,
        step_period_ns=50_000_000,
    )


def test_every_command_type_has_a_profile() -> None:
    choices = {name: info.choices for name, _, info in parameters(NodeConfig())}["command.type"]
    assert sorted(load(path).command.type for path in PROFILES) == sorted({*choices} - {"none"})


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.stem)
def test_a_profile_fits_a_policy_of_its_kind_and_no_other(path: Path) -> None:
    config = load(path)
    check_actions(config, spec(config))
    if config.command.type != "forward":
        other = {"deltas": "positions", "positions": "deltas"}[config.schedule.actions]
        with pytest.raises(ConfigError, match=f"command.type {config.command.type}"):
            check_actions(with_values(config, {"schedule.actions": other}), spec(config))


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.stem)
def test_a_profile_overrides_nothing_that_is_the_robots_own(path: Path) -> None:
    assert set(values(path.read_text())) == {"command_rate_hz", "schedule.actions", "command.type"}


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.stem)
def test_the_examples_in_a_profile_can_be_taken_as_they_are_and_are_slow(path: Path) -> None:
    examples, default = values(uncommented(path)), NodeConfig().limits
    config = with_values(NodeConfig(), examples)
    check_actions(config, spec(config))
    ActionLimiter(config.limits, 7)
    assert {"gripper.open_value", "gripper.closed_value"} <= set(examples)
    if config.schedule.actions == "deltas":
        assert config.limits.max_linear_m_s < default.max_linear_m_s
        assert config.limits.max_angular_rad_s < default.max_angular_rad_s
        assert {"limits.workspace_min_m", "command.frame_id"} <= set(examples)
    else:
        assert config.limits.max_change_per_s < default.max_change_per_s
        assert {"limits.action_min", "command.joint_names"} <= set(examples)


@pytest.mark.parametrize("path", PROFILES, ids=lambda path: path.stem)
def test_a_profile_says_how_to_launch_it_and_the_guide_names_it(path: Path) -> None:
    assert f"policy.launch.py controller:={path.stem}" in path.read_text()
    assert "command_topic:=/" in path.read_text()
    assert f"`{path.stem}`" in (ROOT / "docs" / "controllers.md").read_text()
