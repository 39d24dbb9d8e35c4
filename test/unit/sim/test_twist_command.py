"""Velocity commands become actions: scaled, clipped, forgotten in time, refused when not finite."""

from __future__ import annotations

import math

import numpy as np
import pytest

from lightvla_ros.core.errors import SpecError
from lightvla_ros.sim.twist_command import TwistCommand

SECOND = 1_000_000_000
STILL_AND_OPEN = [0, 0, 0, 0, 0, 0, -1]


@pytest.fixture
def command() -> TwistCommand:
    return TwistCommand(control_period_s=0.05, timeout_s=0.2)


def test_a_twist_is_scaled_to_action_units(command: TwistCommand) -> None:
    command.set_twist((0.5, -1.0, 0.0), (0.0, 5.0, -2.5), now_ns=0)
    np.testing.assert_allclose(command.action(0), [0.5, -1.0, 0.0, 0.0, 0.5, -0.25, -1.0])


def test_a_twist_too_fast_is_clipped(command: TwistCommand) -> None:
    command.set_twist((3.0, 0.0, 0.0), (0.0, 0.0, -99.0), now_ns=0)
    np.testing.assert_allclose(command.action(0), [1, 0, 0, 0, 0, -1, -1])


def test_motion_ends_when_commands_stop_but_the_gripper_holds(command: TwistCommand) -> None:
    command.set_twist((1.0, 0.0, 0.0), (0.0, 0.0, 0.0), now_ns=SECOND)
    command.set_gripper(1.0)
    np.testing.assert_allclose(command.action(SECOND + SECOND // 5), [1, 0, 0, 0, 0, 0, 1])
    np.testing.assert_allclose(command.action(SECOND + SECOND // 5 + 1), [0, 0, 0, 0, 0, 0, 1])


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_twist_that_is_not_finite_is_refused_and_ends_the_motion(command: TwistCommand, bad: float) -> None:
    command.set_twist((1.0, 0.0, 0.0), (0.0, 0.0, 0.0), now_ns=0)
    with pytest.raises(SpecError, match="finite"):
        command.set_twist((0.0, bad, 0.0), (0.0, 0.0, 0.0), now_ns=0)
    np.testing.assert_allclose(command.action(0), STILL_AND_OPEN)


def test_a_gripper_target_that_is_not_finite_leaves_the_previous_one(command: TwistCommand) -> None:
    command.set_gripper(1.0)
    with pytest.raises(SpecError, match="gripper"):
        command.set_gripper(math.nan)
    assert command.action(0)[6] == 1.0


def test_reset_opens_the_gripper_and_stands_still(command: TwistCommand) -> None:
    command.set_twist((1.0, 0.0, 0.0), (0.0, 0.0, 0.0), now_ns=0)
    command.set_gripper(1.0)
    command.reset()
    np.testing.assert_allclose(command.action(0), STILL_AND_OPEN)
