"""From velocity commands to the actions a `World` takes: the controller's last metre."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lightvla_ros.core.errors import SpecError
from lightvla_ros.sim.world import OPEN, ROTATION_SCALE_RAD, TRANSLATION_SCALE_M


class TwistCommand:
    """Hold the newest twist and gripper target and give them out as one action per control step.

    A twist counts for `timeout_s` after it arrived, then the arm stands still; a gripper target
    counts until the next one. One thread may write while another reads.

    Args:
        control_period_s: seconds between two control steps of the world.
        timeout_s: age at which a twist no longer moves anything.
    """

    def __init__(self, *, control_period_s: float, timeout_s: float = 0.2) -> None:
        self._action_per_twist = control_period_s / np.repeat([TRANSLATION_SCALE_M, ROTATION_SCALE_RAD], 3)
        self._timeout_ns = round(timeout_s * 1e9)
        self._motion: tuple[NDArray[np.float64], int] | None = None
        self._gripper = OPEN

    def set_twist(self, linear: Sequence[float], angular: Sequence[float], now_ns: int) -> None:
        """Take a velocity in the world frame, m/s and rad/s; too fast ones are clipped to the action range.

        Raises:
            SpecError: a value is not finite; any motion under way ends.
        """
        twist = np.array([*linear, *angular], dtype=np.float64)
        if twist.shape != (6,) or not np.isfinite(twist).all():
            self._motion = None
            raise SpecError(
                "twist command",
                got=np.array2string(twist, precision=3),
                expected="3 linear and 3 angular finite velocities",
                fix="check the node that publishes the command",
            )
        self._motion = np.clip(twist * self._action_per_twist, -1.0, 1.0), now_ns

    def set_gripper(self, target: float) -> None:
        """Take a gripper target, -1 open to +1 closed.

        Raises:
            SpecError: the target is not finite; the previous one stays.
        """
        if not np.isfinite(target):
            raise SpecError(
                "gripper command", got=target, expected="-1 (open) to +1 (closed)", fix="check its publisher"
            )
        self._gripper = float(np.clip(target, -1.0, 1.0))

    def action(self, now_ns: int) -> NDArray[np.float64]:
        """Return the action [7] due at `now_ns`, of the clock that `set_twist` was given."""
        action = np.zeros(7)
        motion = self._motion
        if motion is not None and now_ns - motion[1] <= self._timeout_ns:
            action[:6] = motion[0]
        action[6] = self._gripper
        return action

    def reset(self) -> None:
        """Forget the twist and open the gripper."""
        self._motion = None
        self._gripper = OPEN
