"""What leaves the node at a tick: a motion, a hold or nothing, and when the gripper changes."""

from __future__ import annotations

import enum
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


class Output(enum.Enum):
    """What the command topic carries at one tick."""

    MOVE = "move"
    HOLD = "hold"
    SILENT = "silent"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Command:
    """What one tick publishes.

    Attributes:
        output: move, hold (zero command) or silence.
        action: float32 [action_dim] when moving, else None.
        step_ns: when the step of the action began; a step has one beginning however often it is published.
        proprio: float64 [P], the robot's newest state; None before the first.
        close_gripper: True or False when the gripper changes, else None.
    """

    output: Output
    action: NDArray[np.float32] | None = None
    step_ns: int = 0
    proprio: NDArray[np.float64] | None = None
    close_gripper: bool | None = None


class GripperSwitch:
    """Open or closed, with hysteresis: small values and exact zeros change nothing."""

    def __init__(self, hysteresis: float) -> None:
        self.hysteresis = hysteresis
        self._closed: bool | None = None

    def changed(self, action: float) -> bool | None:
        """Take the gripper's action in (-1 open, +1 close).

        Returns:
            True to close, False to open, None when nothing changes.
        """
        if abs(action) <= self.hysteresis or (action > 0) == self._closed:
            return None
        self._closed = action > 0
        return self._closed

    def reset(self) -> None:
        """Forget the position, so that the next action is passed on whatever it is."""
        self._closed = None


class OutputGate:
    """Move, hold or say nothing.

    Nothing is said before the first motion. Motion that may go on but has no action due is held, and
    after a while the topic goes silent. Motion that may not go on gets one hold, then silence.
    """

    def __init__(self, silence_after_ns: int) -> None:
        self.silence_after_ns = silence_after_ns
        self._moved_ns: int | None = None

    def decide(self, now_ns: int, *, permitted: bool, has_action: bool) -> Output:
        """Say what this tick publishes.

        Args:
            now_ns: monotonic time.
            permitted: whether motion is wanted at all (active, enabled, instructed).
            has_action: whether an action is due.
        """
        if permitted and has_action:
            self._moved_ns = now_ns
            return Output.MOVE
        if self._moved_ns is None:
            return Output.SILENT
        if not permitted:
            self._moved_ns = None
            return Output.HOLD
        if now_ns - self._moved_ns > self.silence_after_ns:
            self._moved_ns = None
            return Output.SILENT
        return Output.HOLD
