"""A policy whose actions mean something else than the command is refused, with the way out."""

from __future__ import annotations

import pytest

from lightvla_ros.core.config import NodeConfig, with_values
from lightvla_ros.core.errors import ConfigError
from lightvla_ros.core.policy import PolicySpec
from lightvla_ros.core.policy_config import LIBERO_ACTION_NAMES
from lightvla_ros.core.policy_fit import check_actions
from lightvla_ros.sim.world import ACTION_NAMES

END_EFFECTOR = ("x", "y", "z", "rx", "ry", "rz", "gripper")


def check(kind: str, actions: str, names: tuple[str, ...] = END_EFFECTOR, proprio_dim: int = 8) -> None:
    """Check a policy with these actions against a command type."""
    config = with_values(NodeConfig(), {"command.type": kind, "schedule.actions": actions})
    spec = PolicySpec(
        name="example",
        backend="test",
        camera_names=("third_person", "wrist"),
        grid=(4, 4),
        chunk_size=8,
        action_names=names,
        proprio_dim=proprio_dim,
        step_period_ns=50_000_000,
    )
    check_actions(config, spec)


@pytest.mark.parametrize("kind", ["twist", "pose", "forward", "none"])
def test_deltas_can_be_velocities_targets_or_passed_on(kind: str) -> None:
    check(kind, "deltas")


@pytest.mark.parametrize("kind", ["forward", "jtc_point", "jtc_chunk"])
@pytest.mark.parametrize("names", [LIBERO_ACTION_NAMES, ACTION_NAMES])
def test_deltas_of_the_end_effector_are_no_positions_of_joints(kind: str, names: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match=r"deltas of the end effector; .*set command.type to twist"):
        check(kind, "positions", names)


@pytest.mark.parametrize("kind", ["forward", "jtc_point", "jtc_chunk", "none"])
def test_positions_can_be_trajectories_or_passed_on(kind: str) -> None:
    check(kind, "positions")


@pytest.mark.parametrize(
    ("kind", "actions"),
    [("twist", "positions"), ("pose", "positions"), ("jtc_point", "deltas"), ("jtc_chunk", "deltas")],
)
def test_actions_of_the_other_meaning_are_refused(kind: str, actions: str) -> None:
    with pytest.raises(
        ConfigError, match=f"command.type {kind}; got schedule.actions {actions}; expected"
    ) as no:
        check(kind, actions)
    assert "set schedule.actions" in no.value.fix


@pytest.mark.parametrize("kind", ["twist", "pose"])
def test_an_end_effector_has_six_degrees_and_a_gripper(kind: str) -> None:
    with pytest.raises(ConfigError, match="expected 3 translations, 3 rotations and the gripper"):
        check(kind, "deltas", ("joint_1", "joint_2", "gripper"))


@pytest.mark.parametrize("kind", ["forward", "jtc_point", "jtc_chunk"])
def test_each_joint_has_an_action(kind: str) -> None:
    with pytest.raises(ConfigError, match="command.joint_names; got 6 joints; expected 7"):
        check(kind, "positions", (*END_EFFECTOR, "gripper_2"))


def test_a_target_pose_needs_a_measured_one_and_a_velocity_does_not() -> None:
    check("twist", "deltas", proprio_dim=2)
    with pytest.raises(ConfigError, match="command.type pose; got a policy with a state of 2 numbers"):
        check("pose", "deltas", proprio_dim=2)
