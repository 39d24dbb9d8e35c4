"""How scripted experts move: along an offset, no faster than allowed, and without sudden turns."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lightvla_ros.sim.world import TRANSLATION_SCALE_M


def speed_along(
    offset: NDArray[np.float64], *, gain: float, max_across: float, max_up: float, max_down: float
) -> NDArray[np.float64]:
    """Return the first three numbers of an action that goes along an offset.

    Args:
        offset: float64 [3], m, the way to go in the world frame.
        gain: share of it to go in this control period.
        max_across: longest horizontal motion, in the units of an action.
        max_up: likewise, upwards.
        max_down: likewise, downwards, positive.

    Returns:
        float64 [3], as `World.step` takes them.
    """
    speed = gain * offset / TRANSLATION_SCALE_M
    across = float(np.linalg.norm(speed[:2]))
    speed[:2] *= min(1.0, max_across / max(across, 1e-9))
    speed[2] = np.clip(speed[2], -max_down, max_up)
    return np.asarray(speed)


def ramp(value: float, low: float, high: float) -> float:
    """Return 0 up to `low`, 1 from `high` on, linear between."""
    return float(np.clip((value - low) / (high - low), 0.0, 1.0))
