"""ROS parameters: what is told about them, what is refused, and what may change while running."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from harness import Bench
from rclpy.parameter import Parameter

from lightvla_ros.core.config import NodeConfig, parameters

MakeBench = Callable[..., Bench]


def test_every_parameter_is_declared_with_description_range_and_read_only_flag(make_bench: MakeBench) -> None:
    node = make_bench().node
    for name, value, info in parameters(NodeConfig()):
        descriptor = node.describe_parameter(name)
        assert descriptor.description.startswith(info.description)
        assert descriptor.read_only == info.read_only
        ranges = [*descriptor.floating_point_range, *descriptor.integer_range]
        if isinstance(value, int | float) and not isinstance(value, bool):
            assert [(limits.from_value, limits.to_value) for limits in ranges] == [
                (info.minimum, info.maximum)
            ]
        default = node.get_parameter(name).value
        assert (tuple(default) if isinstance(value, tuple) else default) == value


def test_values_given_at_start_reach_the_configuration(make_bench: MakeBench) -> None:
    bench = make_bench(chunk_rate_hz=10, limits__max_linear_m_s=0.2, proprio__gripper_scales=[1, -1])
    config = bench.node.config
    assert (config.chunk_rate_hz, config.limits.max_linear_m_s) == (10.0, 0.2)
    assert config.proprio.gripper_scales == (1.0, -1.0)
    assert bench.node.get_parameter("chunk_rate_hz").value == 10.0


def test_values_that_go_together_can_be_given_together_at_start(make_bench: MakeBench) -> None:
    node = make_bench(proprio__gripper_joints=["finger"], proprio__gripper_scales=[1.0]).node
    assert not node.refusal
    assert (node.config.proprio.gripper_joints, node.config.proprio.gripper_scales) == (("finger",), (1.0,))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("chunk_rate_Hz", 10.0, "parameter chunk_rate_Hz; got an unknown name"),
        ("stale_after_s", 0.0, "parameter stale_after_s; got 0.0; expected 0.01 to 60 s"),
        ("backend", "jax", "parameter backend; got 'jax'; expected one of auto"),
        ("engine", 7, "parameter engine; got 7 (int); expected str"),
    ],
)
def test_a_wrong_value_at_start_refuses_configure_and_the_node_stays_up(
    make_bench: MakeBench, name: str, value: object, message: str
) -> None:
    bench = make_bench(**{name: value})
    assert not bench.configure()
    assert message in bench.node.refusal
    bench.wait_until(lambda: message in bench.robot.status.get("stop_reason", ""), "diagnostics")


def test_a_speed_limit_changed_while_moving_takes_effect(moving: Bench) -> None:
    (result,) = moving.node.set_parameters([Parameter("limits.max_linear_m_s", value=0.05)])
    assert result.successful
    moving.wait_until(lambda: 0.0 < moving.robot.speeds[-1] < 0.03, "slower twists")
    moving.wait_until(lambda: int(moving.robot.status.get("limited", 0)) > 0, "the count of limited commands")


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("limits.max_linear_m_s", -1.0, "limits.max_linear_m_s"),
        ("stale_after_s", float("nan"), "stale_after_s"),
        ("command_rate_hz", 50.0, "read-only"),
    ],
)
def test_a_wrong_or_fixed_value_at_run_time_is_refused_with_a_reason(
    make_bench: MakeBench, name: str, value: float, reason: str
) -> None:
    node = make_bench().node
    before = node.config
    (result,) = node.set_parameters([Parameter(name, value=value)])
    assert not result.successful
    assert reason in result.reason
    assert node.config == before


def test_a_limit_that_does_not_fit_the_policy_is_refused_and_motion_goes_on(moving: Bench) -> None:
    (result,) = moving.node.set_parameters([Parameter("limits.action_max", value=[0.5, 0.5])])
    assert not result.successful
    assert "limits.action_max; got 2 numbers; expected one for all, or 6" in result.reason
    assert moving.node.config.limits.action_max == (1000.0,)
    moving.wait_for_motion()
