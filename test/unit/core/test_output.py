"""Move, hold, silence; and the gripper's switch."""

from __future__ import annotations

import pytest

from lightvla_ros.core.output import GripperSwitch, Output, OutputGate


def test_nothing_is_said_before_the_first_motion() -> None:
    gate = OutputGate(silence_after_ns=100)
    assert gate.decide(0, permitted=True, has_action=False) is Output.SILENT
    assert gate.decide(0, permitted=False, has_action=True) is Output.SILENT


def test_a_missing_action_is_held_and_then_the_topic_goes_silent() -> None:
    gate = OutputGate(silence_after_ns=100)
    assert gate.decide(0, permitted=True, has_action=True) is Output.MOVE
    outputs = [gate.decide(now, permitted=True, has_action=False) for now in (50, 100, 101, 102)]
    assert outputs == [Output.HOLD, Output.HOLD, Output.SILENT, Output.SILENT]


def test_motion_that_may_not_go_on_gets_one_hold() -> None:
    gate = OutputGate(silence_after_ns=100)
    gate.decide(0, permitted=True, has_action=True)
    outputs = [gate.decide(now, permitted=False, has_action=False) for now in (1, 2)]
    assert outputs == [Output.HOLD, Output.SILENT]


@pytest.mark.parametrize(
    ("actions", "changes"),
    [
        ([-1.0, -1.0, 1.0, 1.0, -1.0], [False, None, True, None, False]),
        ([0.0, 0.4, -0.5], [None, None, None]),
        ([1.0, 0.0, -0.3, -0.6], [True, None, None, False]),
    ],
)
def test_the_gripper_speaks_on_change_only(actions: list[float], changes: list[bool | None]) -> None:
    switch = GripperSwitch(hysteresis=0.5)
    assert [switch.changed(action) for action in actions] == changes


def test_after_a_reset_the_gripper_speaks_again() -> None:
    switch = GripperSwitch(hysteresis=0.5)
    switch.changed(1.0)
    switch.reset()
    assert switch.changed(1.0) is True
