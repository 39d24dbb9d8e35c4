"""Which action dimension each joint of a controller gets: by name where the names agree, else in order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lightvla_ros.core.errors import ConfigError


def joint_order(joint_names: Sequence[str], action_names: Sequence[str]) -> NDArray[np.intp]:
    """Find the action dimension of each joint.

    Joints that are all names of actions are found by name. Where none of them is, the policy names its
    actions otherwise (x, y, ... or nothing of use) and joint i is action i.

    Args:
        joint_names: joints in the controller's order.
        action_names: the policy's action dimensions without the gripper.

    Returns:
        intp [J]: `action[order]` is in the controller's order.

    Raises:
        ConfigError: another number of joints than actions, a joint named twice, or some found and some not.
    """
    if len(joint_names) != len(action_names):
        raise _refusal(
            f"{len(joint_names)} joints", f"{len(action_names)}: the actions are {[*action_names]}"
        )
    repeated = sorted({name for name in joint_names if joint_names.count(name) > 1})
    if repeated:
        raise _refusal(f"{repeated} more than once", "each joint once")
    unknown = [name for name in joint_names if name not in action_names]
    if len(unknown) == len(joint_names):
        return np.arange(len(joint_names), dtype=np.intp)
    if unknown:
        raise _refusal(f"{unknown}, which are no actions, beside joints that are", f"{[*action_names]}")
    return np.array([action_names.index(name) for name in joint_names], dtype=np.intp)


def _refusal(got: str, expected: str) -> ConfigError:
    fix = "name one joint per action dimension but the gripper, in the controller's order"
    return ConfigError("command.joint_names", got=got, expected=expected, fix=fix)
