"""What both scripted experts move by."""

from __future__ import annotations

import numpy as np
import pytest

from lightvla_ros.sim.motion import ramp, speed_along

LIMITS = {"max_across": 0.4, "max_up": 0.3, "max_down": 0.2}


def test_an_offset_near_by_is_gone_by_its_share() -> None:
    np.testing.assert_allclose(
        speed_along(np.array([0.01, 0.0, -0.02]), gain=0.5, **LIMITS), [0.1, 0.0, -0.2]
    )


def test_far_across_the_direction_stays_and_the_speed_is_the_limit() -> None:
    np.testing.assert_allclose(
        speed_along(np.array([0.3, -0.4, 0.0]), gain=1.0, **LIMITS), [0.24, -0.32, 0.0]
    )


@pytest.mark.parametrize(("height", "speed"), [(1.0, 0.3), (-1.0, -0.2)])
def test_up_and_down_have_limits_of_their_own(height: float, speed: float) -> None:
    assert speed_along(np.array([0.0, 0.0, height]), gain=1.0, **LIMITS)[2] == speed


def test_a_ramp_rises_between_its_ends() -> None:
    assert [ramp(value, 1.0, 3.0) for value in (0.0, 1.0, 2.0, 3.0, 9.0)] == [0.0, 0.0, 0.5, 1.0, 1.0]
