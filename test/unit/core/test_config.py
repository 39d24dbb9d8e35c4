"""The typed configuration: defaults are valid, and a wrong value is named with its rule."""

from __future__ import annotations

import dataclasses
import math
from array import array

import pytest

from lightvla_ros.core.config import LimitsConfig, NodeConfig, ProprioConfig, parameters, with_values
from lightvla_ros.core.errors import ConfigError


def test_every_parameter_has_a_description_and_every_number_a_range() -> None:
    for name, value, info in parameters(NodeConfig()):
        assert info.description.endswith("."), name
        if isinstance(value, int | float) and not isinstance(value, bool):
            assert info.minimum is not None and info.maximum is not None, name


def test_names_are_dotted_paths_in_the_tree() -> None:
    names = [name for name, _, _ in parameters(NodeConfig())]
    assert {"engine", "chunk_rate_hz", "limits.max_linear_m_s", "proprio.gripper_joints"} <= set(names)
    assert len(names) == len(set(names))


def test_a_nested_value_is_changed_and_the_rest_is_kept() -> None:
    config = with_values(NodeConfig(), {"limits.max_linear_m_s": 0.2, "engine": "other"})
    assert config.limits == LimitsConfig(max_linear_m_s=0.2)
    assert dataclasses.replace(config, limits=LimitsConfig(), engine="mini") == NodeConfig()


def test_whole_numbers_and_lists_are_taken_where_floats_and_tuples_belong() -> None:
    config = with_values(NodeConfig(), {"chunk_rate_hz": 10, "proprio.gripper_scales": [1, -1]})
    assert config.chunk_rate_hz == 10.0 and isinstance(config.chunk_rate_hz, float)
    assert config.proprio.gripper_scales == (1.0, -1.0)
    # As ROS hands over what is changed at run time.
    config = with_values(config, {"proprio.gripper_scales": array("d", [1.0, 2.0])})
    assert config.proprio.gripper_scales == (1.0, 2.0)


def test_a_list_that_was_emptied_can_be_filled_again() -> None:
    empty = with_values(NodeConfig(), {"proprio.gripper_joints": [], "proprio.gripper_scales": []})
    refilled = {"proprio.gripper_joints": ["finger"], "proprio.gripper_scales": [1]}
    assert with_values(empty, refilled).proprio == ProprioConfig(
        gripper_joints=("finger",), gripper_scales=(1.0,)
    )


@pytest.mark.parametrize(
    ("name", "value", "rule"),
    [
        ("chunk_rate_hz", 0.0, "1 to 1000 Hz"),
        ("stale_after_s", math.nan, "0.01 to 60 s"),
        ("limits.max_angular_rad_s", math.inf, "0 to 100 rad/s"),
        ("backend", "jax", "one of auto, torch"),
        ("num_threads", 1.5, "int"),
        ("num_threads", True, "int"),
        ("enable_actuation", 1, "bool"),
        ("proprio.gripper_joints", [1, 2], "str"),
        ("proprio.gripper_scales", 1.0, "tuple"),
    ],
)
def test_a_wrong_value_is_named_with_its_rule(name: str, value: object, rule: str) -> None:
    with pytest.raises(ConfigError) as caught:
        with_values(NodeConfig(), {name: value})
    assert name in str(caught.value) and rule in str(caught.value)
    assert isinstance(value, list) or str(value) in str(caught.value)


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ConfigError, match="limits.max_linear; got an unknown name"):
        with_values(NodeConfig(), {"limits.max_linear": 1.0})


def test_scales_without_joints_are_refused() -> None:
    with pytest.raises(ConfigError, match="one per gripper joint, 1"):
        ProprioConfig(gripper_joints=("finger",))


def test_a_section_checks_itself() -> None:
    with pytest.raises(ConfigError, match=r"max_linear_m_s; got -1\.0; expected 0 to 10 m/s"):
        LimitsConfig(max_linear_m_s=-1.0)
