"""What leaves the node at a tick: a motion, a hold or nothing, and when the gripper changes."""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lightvla_ros.core.chunk_schedule import DueStep, RemainingSteps
from lightvla_ros.core.config import NodeConfig
from lightvla_ros.core.limits import ActionLimiter


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
        action: float32 [action_dim], limited, when moving, else None.
        stamp_ns: stamp of the observation that the action answers.
        step_ns: when the step of the action began; a step has one beginning however often it is published.
        ahead: the steps that follow, limited, when moving and asked for; else None.
        proprio: float64 [P], the robot's newest state; None before the first.
        close_gripper: True or False when the gripper changes, else None.
        is_limited: whether the policy wanted more than the limits of its actions allow.
    """

    output: Output
    action: NDArray[np.float32] | None = None
    stamp_ns: int = 0
    step_ns: int = 0
    ahead: RemainingSteps | None = None
    proprio: NDArray[np.float64] | None = None
    close_gripper: bool | None = None
    is_limited: bool = False


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


class CommandMaker:
    """From the step that is due to what one tick publishes. Not thread safe: the owner locks.

    Args:
        config: limits, gripper and how long to hold.
        action_dim: dimensions of an action; the gripper is the last.

    Raises:
        ConfigError: a limit does not fit the actions.
    """

    def __init__(self, config: NodeConfig, action_dim: int) -> None:
        self._gate = OutputGate(0)
        self._gripper = GripperSwitch(0.0)
        self._limiter = ActionLimiter(config.limits, action_dim)
        self.apply(config)

    def apply(self, config: NodeConfig) -> None:
        """Take over the values that may change while running.

        Raises:
            ConfigError: a limit does not fit the actions; nothing was changed.
        """
        self._limiter.apply(config.limits)
        self._gate.silence_after_ns = round(config.silence_after_s * 1e9)
        self._gripper.hysteresis = config.gripper.hysteresis
        self._still_is_zero = config.schedule.actions == "deltas"

    def make(
        self,
        step: DueStep | None,
        ahead: RemainingSteps | None,
        *,
        permitted: bool,
        proprio: NDArray[np.float64] | None,
        now_ns: int,
        monotonic_ns: int,
    ) -> Command:
        """Decide what a tick publishes.

        Args:
            step: what is due now.
            ahead: the steps that follow, when they are to be published.
            permitted: whether motion is wanted at all.
            proprio: float64 [P], the newest state.
            now_ns: ROS time of the tick.
            monotonic_ns: monotonic time of the tick.
        """
        output = self._gate.decide(monotonic_ns, permitted=permitted, has_action=step is not None)
        if output is not Output.MOVE or step is None:
            self._limiter.stand_still(monotonic_ns, is_zero=self._still_is_zero)
            return Command(output=output, proprio=proprio)
        action, is_limited = self._limiter.limit(step.action, monotonic_ns)
        if ahead is not None:
            limited = self._limiter.limit_steps(
                ahead.actions,
                first_s=(ahead.begins_ns - now_ns) / 1e9,
                period_s=ahead.step_period_ns / 1e9,
            )
            ahead = replace(ahead, actions=limited)
        return Command(
            output=output,
            action=action,
            stamp_ns=step.stamp_ns,
            step_ns=step.begins_ns,
            ahead=ahead,
            proprio=proprio,
            close_gripper=self._gripper.changed(float(action[-1])),
            is_limited=is_limited,
        )

    def forget_gripper(self) -> None:
        """Pass the gripper's next action on whatever it is."""
        self._gripper.reset()

    def forget_motion(self) -> None:
        """Let the next action differ from the last one by any amount."""
        self._limiter.reset()
