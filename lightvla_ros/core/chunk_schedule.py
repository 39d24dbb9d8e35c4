"""Which action is due now: the newest chunk laid out in time. Time is always an argument."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lightvla_ros.core.errors import SpecError
from lightvla_ros.core.observation import ActionChunk


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RemainingSteps:
    """The steps of the schedule that have not started yet.

    Attributes:
        actions: float32 [R, action_dim], R >= 1; read-only.
        first_index: index of the first of them in its chunk.
        stamp_ns: observation stamp of the chunk, whose step i is due at `stamp_ns + i * step_period_ns`.
        step_period_ns: time between two steps.
    """

    actions: NDArray[np.float32]
    first_index: int
    stamp_ns: int
    step_period_ns: int


class DueStep(NamedTuple):
    """The step due now: float32 [action_dim], read-only, and when it began."""

    action: NDArray[np.float32]
    begins_ns: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Plan:
    actions: NDArray[np.float32]
    stamp_ns: int
    step_period_ns: int

    def index(self, now_ns: int) -> int:
        """Index of the step due at a time; outside 0..len-1 where the chunk has none."""
        return (now_ns - self.stamp_ns) // self.step_period_ns


class ChunkSchedule:
    """The newest chunk, sampled by time.

    Step i is due in `[stamp + i * period, stamp + (i + 1) * period)` and at no other time, so a late
    chunk starts in its middle and a step of the past never comes back. A chunk replaces the schedule
    at once; where the old one still has a step due, the two are blended (never the gripper).

    Every method may be called from any thread.

    Args:
        new_weight: weight of the newer chunk in the blend, 0 < w <= 1.
        execution_horizon: steps of a chunk that are executed before a newer observation is wanted; 1 wants
            every one.
        gripper_index: action dimension that is never blended.
    """

    def __init__(
        self, *, new_weight: float = 0.7, execution_horizon: int = 1, gripper_index: int = -1
    ) -> None:
        self.new_weight = new_weight
        self.execution_horizon = execution_horizon
        self._gripper_index = gripper_index
        self._lock = threading.Lock()
        self._epoch = 0
        self._plan: _Plan | None = None

    def reset(self, epoch: int) -> None:
        """Drop everything; from now on only chunks of this epoch are taken."""
        with self._lock:
            self._epoch = epoch
            self._plan = None

    def replace(self, chunk: ActionChunk, now_ns: int) -> bool:
        """Put a finished chunk in place of the schedule.

        Returns:
            Whether it was taken: False for a chunk of another epoch, of an observation older than the
            one already scheduled, or whose steps are all past.

        Raises:
            SpecError: the chunk is empty, misshapen or not finite; the schedule stays as it was.
        """
        _check(chunk)
        with self._lock:
            old = self._plan
            outdated = old is not None and chunk.stamp_ns < old.stamp_ns
            end_ns = chunk.stamp_ns + len(chunk.actions) * chunk.step_period_ns
            if chunk.epoch != self._epoch or outdated or end_ns <= now_ns:
                return False
            self._plan = self._blended(old, chunk, now_ns)
            return True

    def is_fresh(self, stamp_ns: int) -> bool:
        """Whether an observation of this stamp comes before the schedule's execution horizon is over."""
        plan = self._plan
        if plan is None or self.execution_horizon == 1:
            return False
        # Half a step of tolerance: frames of the step itself arrive a little early as often as late.
        horizon_ns = (2 * self.execution_horizon - 1) * plan.step_period_ns // 2
        return stamp_ns - plan.stamp_ns < min(horizon_ns, len(plan.actions) * plan.step_period_ns)

    def sample(self, now_ns: int) -> NDArray[np.float32] | None:
        """Return the action due now, float32 [action_dim], read-only; None when there is none."""
        step = self.due(now_ns)
        return None if step is None else step.action

    def due(self, now_ns: int) -> DueStep | None:
        """Return the step due now; None when there is none."""
        plan = self._plan
        if plan is None:
            return None
        index = plan.index(now_ns)
        if not 0 <= index < len(plan.actions):
            return None
        return DueStep(plan.actions[index], plan.stamp_ns + index * plan.step_period_ns)

    def remaining(self, now_ns: int) -> RemainingSteps | None:
        """Return the steps due at `now_ns` or later; None when there are none."""
        plan = self._plan
        if plan is None:
            return None
        first = max(0, -((plan.stamp_ns - now_ns) // plan.step_period_ns))
        if first >= len(plan.actions):
            return None
        return RemainingSteps(
            actions=plan.actions[first:],
            first_index=first,
            stamp_ns=plan.stamp_ns,
            step_period_ns=plan.step_period_ns,
        )

    def _blended(self, old: _Plan | None, chunk: ActionChunk, now_ns: int) -> _Plan:
        actions = np.array(chunk.actions, dtype=np.float32)
        if old is not None and old.actions.shape[1] == actions.shape[1]:
            # A step already begun is compared with what the old plan does now, not with its past.
            starts = chunk.stamp_ns + chunk.step_period_ns * np.arange(len(actions), dtype=np.int64)
            old_index = (np.maximum(starts, now_ns) - old.stamp_ns) // old.step_period_ns
            overlap = (starts + chunk.step_period_ns > now_ns) & (old_index >= 0)
            overlap &= old_index < len(old.actions)
            gripper = actions[:, self._gripper_index].copy()
            new, previous = actions[overlap], old.actions[old_index[overlap]]
            blend = previous + np.float32(self.new_weight) * (new - previous)
            actions[overlap] = np.clip(blend, np.minimum(new, previous), np.maximum(new, previous))
            actions[:, self._gripper_index] = gripper
        actions.flags.writeable = False
        return _Plan(actions=actions, stamp_ns=chunk.stamp_ns, step_period_ns=chunk.step_period_ns)


def _check(chunk: ActionChunk) -> None:
    shape = chunk.actions.shape
    if chunk.actions.ndim != 2 or 0 in shape or chunk.step_period_ns <= 0:
        raise SpecError(
            "action chunk",
            got=f"actions of shape {shape}, step period {chunk.step_period_ns} ns",
            expected="actions [chunk_size, action_dim] and a positive period",
        )
    if not np.isfinite(chunk.actions).all():
        raise SpecError(
            "action chunk",
            got=f"{np.count_nonzero(~np.isfinite(chunk.actions))} non-finite values",
            expected="finite numbers; the whole chunk is refused",
            fix="run `lightvla verify` on the engine",
        )
