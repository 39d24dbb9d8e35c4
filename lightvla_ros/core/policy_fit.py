"""Whether a configuration can feed a policy and obey it."""

from __future__ import annotations

from lightvla_ros.core.config import NodeConfig
from lightvla_ros.core.errors import ConfigError
from lightvla_ros.core.joint_order import joint_order
from lightvla_ros.core.policy import PolicySpec
from lightvla_ros.core.policy_config import LIBERO_ACTION_NAMES

_POSE_DIMS = 6
_END_EFFECTOR_DIMS = 7
# What deltas of the end effector are called in LIBERO's bundles and in the embedded one.
_END_EFFECTOR_NAMES = (LIBERO_ACTION_NAMES, ("x", "y", "z", "roll", "pitch", "yaw", "gripper"))
_NEEDED = {"twist": "deltas", "pose": "deltas", "jtc_point": "positions", "jtc_chunk": "positions"}
_MEANINGS = {
    "deltas": "it tells the end effector to move",
    "positions": "its points are where the joints shall be",
}


def check_fit(config: NodeConfig, spec: PolicySpec) -> None:
    """Check that the configuration can feed and obey the policy.

    Raises:
        ConfigError: the state vector or the action has another length, or a camera is unknown.
    """
    check_actions(config, spec)
    unknown = config.camera.upside_down_names.difference(spec.camera_names)
    if unknown:
        raise ConfigError(
            "camera.upside_down",
            got=", ".join(sorted(unknown)),
            expected=f"cameras of the policy {spec.name!r}: {', '.join(spec.camera_names)}",
            fix="name them with spaces between",
        )
    proprio_dim = _POSE_DIMS + len(config.proprio.gripper_joints)
    if config.proprio.source == "eef_pose" and proprio_dim != spec.proprio_dim:
        raise ConfigError(
            "proprio.gripper_joints",
            got=f"{len(config.proprio.gripper_joints)} joints, so a state of {proprio_dim} numbers",
            expected=f"{spec.proprio_dim}, as the policy {spec.name!r} was trained with",
            fix="name its gripper joints, or set proprio.source to proprio",
        )


def check_actions(config: NodeConfig, spec: PolicySpec) -> None:
    """Check that a policy's actions can be sent as the command type.

    Raises:
        ConfigError: they mean something else, or their number does not fit.
    """
    kind = config.command.type
    needed = _NEEDED.get(kind, config.schedule.actions)
    if needed != config.schedule.actions:
        raise ConfigError(
            f"command.type {kind}",
            got=f"schedule.actions {config.schedule.actions}",
            expected=f"{needed}: {_MEANINGS[needed]}",
            fix="set schedule.actions to what the policy gives; send deltas as twist, pose or forward "
            "(joint velocities), positions as forward, jtc_point or jtc_chunk",
        )
    if kind in ("forward", "jtc_point", "jtc_chunk"):
        _check_joints(config, spec)
        joint_order(config.command.joint_names, spec.action_names[:-1])
    if kind in ("twist", "pose") and len(spec.action_names) != _END_EFFECTOR_DIMS:
        raise ConfigError(
            f"command.type {kind}",
            got=f"a policy with actions {list(spec.action_names)}",
            expected="3 translations, 3 rotations and the gripper",
            fix="set command.type to forward, jtc_point or jtc_chunk, or to none and use policy/action_chunk",
        )
    if kind == "pose" and spec.proprio_dim < _POSE_DIMS:
        raise ConfigError(
            "command.type pose",
            got=f"a policy with a state of {spec.proprio_dim} numbers",
            expected=f"{_POSE_DIMS} or more: targets start from the measured position and rotation vector",
            fix="set command.type to twist",
        )


def _check_joints(config: NodeConfig, spec: PolicySpec) -> None:
    # Deltas are small numbers: as positions they would send every joint to about zero.
    if config.schedule.actions == "positions" and spec.action_names in _END_EFFECTOR_NAMES:
        raise ConfigError(
            f"command.type {config.command.type} with schedule.actions positions",
            got=f"a policy with actions {list(spec.action_names)}: deltas of the end effector",
            expected="positions of joints",
            fix="set command.type to twist or pose and schedule.actions to deltas; a policy that does give "
            "joint positions names its joints in action_names of the policy section before it is exported",
        )
