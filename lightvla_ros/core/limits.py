"""How far and how fast a command may go: what is too much is cut, and its direction kept where it has one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lightvla_ros.core.errors import ConfigError
from lightvla_ros.core.output_config import LimitsConfig


def limit_norm(vector: NDArray[np.float64], maximum: float) -> bool:
    """Shorten a vector in place to a largest length; its direction is kept.

    Args:
        vector: float64 [n], finite, changed in place.
        maximum: largest Euclidean norm, >= 0.

    Returns:
        Whether it was shortened.
    """
    norm = float(np.sqrt(vector @ vector))
    if norm <= maximum:
        return False
    vector *= maximum / norm
    return True


def limit_delta(
    delta: NDArray[np.float64], position: NDArray[np.float64] | None, limits: LimitsConfig, step_s: float
) -> bool:
    """Limit the end effector's motion of one step in place: per step, per second, and to the workspace.

    An end effector outside the workspace may come back, but goes no further out.

    Args:
        delta: float64 [6], translation m and rotation vector rad of one step, changed in place.
        position: float64 [>= 3], m, measured, where the delta starts; None for no workspace.
        limits: the largest values.
        step_s: duration of the step.

    Returns:
        Whether anything was cut.
    """
    linear, angular = delta[:3], delta[3:6]
    cut = limit_norm(linear, min(limits.max_linear_step_m, limits.max_linear_m_s * step_s))
    cut |= limit_norm(angular, min(limits.max_angular_step_rad, limits.max_angular_rad_s * step_s))
    if position is None:
        return cut
    here = position[:3]
    target = np.clip(
        here + linear,
        np.minimum(limits.workspace_min_m, here),
        np.maximum(limits.workspace_max_m, here),
    )
    inside = target - here
    # A difference of rounding only is no cut.
    left = bool((np.abs(inside - linear) > 1e-9).any())
    if left:
        linear[:] = inside
    return cut or left


class ActionLimiter:
    """Limit each dimension of the actions, but the gripper: their value, and their change in time.

    Not thread safe: the owner locks.

    Args:
        limits: the largest values.
        action_dim: dimensions of an action, the gripper included.

    Raises:
        ConfigError: a limit is given for another number of dimensions.
    """

    def __init__(self, limits: LimitsConfig, action_dim: int) -> None:
        self._size = action_dim - 1
        self._last: NDArray[np.float32] | None = None
        self._last_ns = 0
        self.apply(limits)

    def apply(self, limits: LimitsConfig) -> None:
        """Take other limits over."""
        fitted = [
            _per_dimension(name, values, self._size)
            for name, values in (
                ("action_min", limits.action_min),
                ("action_max", limits.action_max),
                ("max_change_per_s", limits.max_change_per_s),
            )
        ]
        self._low, self._high, self._change_per_s = fitted

    def limit(self, action: NDArray[np.float32], now_ns: int) -> tuple[NDArray[np.float32], bool]:
        """Limit the action of one tick.

        Args:
            action: float32 [action_dim]; left as it is.
            now_ns: monotonic time, for the change since the last tick.

        Returns:
            the limited action, and whether anything was cut.
        """
        limited, cut = self._clipped(action, self._last, (now_ns - self._last_ns) / 1e9)
        self._last, self._last_ns = limited, now_ns
        return limited, cut

    def limit_steps(
        self, actions: NDArray[np.float32], *, first_s: float, period_s: float
    ) -> NDArray[np.float32]:
        """Limit steps that follow the last limited action.

        Args:
            actions: float32 [R, action_dim]; left as they are.
            first_s: time from the last limited action to the first step.
            period_s: time between two steps.

        Returns:
            float32 [R, action_dim].
        """
        limited = np.empty_like(actions)
        last, elapsed_s = self._last, first_s
        for index, action in enumerate(actions):
            limited[index], _ = self._clipped(action, last, elapsed_s)
            last, elapsed_s = limited[index], period_s
        return limited

    def stand_still(self, now_ns: int, *, is_zero: bool) -> None:
        """Note a tick without motion; where standing still is zero, motion starts again from zero."""
        if is_zero and self._last is not None:
            self._last = np.zeros_like(self._last)
        self._last_ns = now_ns

    def reset(self) -> None:
        """Forget the last action: the next one may have any value within its bounds."""
        self._last = None

    def _clipped(
        self, action: NDArray[np.float32], last: NDArray[np.float32] | None, elapsed_s: float
    ) -> tuple[NDArray[np.float32], bool]:
        wanted = action[: self._size]
        kept = np.clip(wanted, self._low, self._high)
        if last is not None:
            reach = self._change_per_s * max(elapsed_s, 0.0)
            kept = np.clip(kept, last[: self._size] - reach, last[: self._size] + reach)
        limited = action.copy()
        limited[: self._size] = kept
        # Compared as float32, as it is commanded: float64 bounds round.
        return limited, bool((limited != action).any())


def _per_dimension(name: str, values: tuple[float, ...], size: int) -> NDArray[np.float64]:
    if len(values) not in (1, size):
        raise ConfigError(
            f"limits.{name}",
            got=f"{len(values)} numbers",
            expected=f"one for all, or {size}: one per action dimension but the gripper",
            fix=f"give limits.{name} one number or {size}",
        )
    return np.broadcast_to(np.array(values, dtype=np.float64), (size,))
