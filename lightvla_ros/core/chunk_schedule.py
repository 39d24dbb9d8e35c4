"""Which action is due now, and when the next observation is wanted. Time is always an argument."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lightvla_ros.core.chunk_plan import Plan, blend, ensemble
from lightvla_ros.core.errors import ChunkError
from lightvla_ros.core.metrics import Window
from lightvla_ros.core.observation import ActionChunk
from lightvla_ros.core.output_config import ScheduleConfig

# More chunks than this never overlap in practice; the bound is for one whose steps last for ever.
_MAX_ENSEMBLE = 64


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RemainingSteps:
    """The steps of the schedule that have not started yet.

    Attributes:
        actions: float32 [R, action_dim], R >= 1; read-only.
        stamp_ns: observation stamp of their chunk.
        begins_ns: when the first of them begins; step j begins at `begins_ns + j * step_period_ns`.
        step_period_ns: time between two steps.
    """

    actions: NDArray[np.float32]
    stamp_ns: int
    begins_ns: int
    step_period_ns: int


class DueStep(NamedTuple):
    """What is due now: float32 [action_dim], read-only, when its step began, and its observation's stamp."""

    action: NDArray[np.float32]
    begins_ns: int
    stamp_ns: int


class ChunkSchedule:
    """The newest chunk, sampled by time.

    In modes `continuous` and `threshold` step i is due in `[stamp + i * period, stamp + (i + 1) * period)`
    and at no other time, so a late chunk starts in its middle and a step of the past never comes back. In
    mode `sync` the robot stood still meanwhile, so a chunk starts at its first step when it comes. A
    chunk replaces the schedule at once; where others still have a step due, they are joined
    (`chunk_plan`), but never the gripper. Only one that begins later, as the camera's clock is a little
    ahead, leaves the one before in force until then.

    Every method may be called from any thread.

    Args:
        config: mode, horizon and blending.
    """

    def __init__(self, config: ScheduleConfig | None = None) -> None:
        self.config = config or ScheduleConfig()
        self._lock = threading.Lock()
        self._epoch = 0
        # The newest plan, and before it the one in force until it begins, if there is one.
        self._plans: tuple[Plan, ...] = ()
        self._given: deque[Plan] = deque(maxlen=_MAX_ENSEMBLE)
        self._latencies_ns = Window(size=64)
        self._latency_p95_ns = 0.0

    def reset(self, epoch: int) -> None:
        """Drop everything; from now on only chunks of this epoch are taken."""
        with self._lock:
            self._epoch = epoch
            self._plans = ()
            self._given.clear()

    def replace(self, chunk: ActionChunk, now_ns: int) -> bool:
        """Put a finished chunk in place of the schedule.

        Returns:
            Whether it was taken: False for a chunk of another epoch, of an observation older than the
            one already scheduled, or whose steps are all past.

        Raises:
            ChunkError: the chunk is empty, misshapen or not finite; the schedule stays as it was.
        """
        _check(chunk)
        with self._lock:
            if chunk.epoch != self._epoch:
                return False
            self._note_latency(now_ns - chunk.stamp_ns)
            new, old = self._lay_out(chunk, now_ns), self._newest
            if old is not None and old.actions.shape[1] != new.actions.shape[1]:
                old = None
                self._given.clear()
            if new.ends_ns <= now_ns or (old is not None and new.stamp_ns < old.stamp_ns):
                return False
            joined = self._joined(new, old, now_ns)
            joined.actions.flags.writeable = False
            in_force = self._in_force(now_ns) if joined.begins_ns > now_ns else None
            self._plans = (joined,) if in_force is None else (in_force, joined)
            self._given.append(new)
            return True

    def wants(self, stamp_ns: int, now_ns: int) -> bool:
        """Whether an inference from an observation of this stamp shall start now."""
        plan, config = self._newest, self.config
        if plan is None:
            return True
        if config.mode == "sync":
            return stamp_ns >= plan.ends_ns
        if config.mode == "threshold":
            left_ns = plan.ends_ns - (now_ns + self._latency_p95_ns)
            return left_ns <= config.threshold * (plan.ends_ns - plan.begins_ns)
        if config.execution_horizon == 1:
            return True
        # Half a step of tolerance: frames of the step itself arrive a little early as often as late.
        horizon_ns = (2 * config.execution_horizon - 1) * plan.step_period_ns // 2
        return stamp_ns - plan.stamp_ns >= min(horizon_ns, plan.ends_ns - plan.begins_ns)

    def sample(self, now_ns: int) -> NDArray[np.float32] | None:
        """Return the action due now, float32 [action_dim], read-only; None when there is none."""
        step = self.due(now_ns)
        return None if step is None else step.action

    def due(self, now_ns: int) -> DueStep | None:
        """Return the step due now; None when there is none."""
        plan = self._in_force(now_ns)
        if plan is None or now_ns >= plan.ends_ns:
            return None
        (action,), _ = plan.sample(np.array([now_ns]))
        action.flags.writeable = False
        return DueStep(action, plan.begin_of_step_ns(now_ns), plan.stamp_ns)

    def remaining(self, now_ns: int) -> RemainingSteps | None:
        """Return the newest chunk's steps that begin at `now_ns` or later; None when there are none."""
        plan = self._newest
        if plan is None:
            return None
        first = max(0, -((plan.begins_ns - now_ns) // plan.step_period_ns))
        if first >= len(plan.actions):
            return None
        return RemainingSteps(
            actions=plan.actions[first:],
            stamp_ns=plan.stamp_ns,
            begins_ns=plan.begins_ns + first * plan.step_period_ns,
            step_period_ns=plan.step_period_ns,
        )

    @property
    def _newest(self) -> Plan | None:
        plans = self._plans
        return plans[-1] if plans else None

    def _in_force(self, now_ns: int) -> Plan | None:
        """The newest plan that has begun."""
        return next((plan for plan in reversed(self._plans) if plan.begins_ns <= now_ns), None)

    def _lay_out(self, chunk: ActionChunk, now_ns: int) -> Plan:
        waits = self.config.mode == "sync"
        steps = self.config.execution_horizon if waits else len(chunk.actions)
        return Plan(
            actions=np.array(chunk.actions[:steps], dtype=np.float32),
            stamp_ns=chunk.stamp_ns,
            begins_ns=now_ns if waits else chunk.stamp_ns,
            step_period_ns=chunk.step_period_ns,
            interpolates=self.config.actions == "positions",
        )

    def _joined(self, new: Plan, old: Plan | None, now_ns: int) -> Plan:
        if old is None or self.config.mode == "sync":
            return new
        if self.config.blending == "ensemble":
            given = [plan for plan in self._given if plan.ends_ns > now_ns]
            return ensemble(new, given, now_ns=now_ns, decay=self.config.ensemble_decay)
        return blend(new, old, now_ns=now_ns, new_weight=self.config.blend_new_weight)

    def _note_latency(self, latency_ns: int) -> None:
        self._latencies_ns.add(latency_ns)
        (self._latency_p95_ns,) = self._latencies_ns.percentiles(95)


def _check(chunk: ActionChunk) -> None:
    shape = chunk.actions.shape
    if chunk.actions.ndim != 2 or 0 in shape or chunk.step_period_ns <= 0:
        raise ChunkError(
            "action chunk",
            got=f"actions of shape {shape}, step period {chunk.step_period_ns} ns",
            expected="actions [chunk_size, action_dim] and a positive period",
            fix="run `lightvla verify` on the engine",
        )
    if not np.isfinite(chunk.actions).all():
        raise ChunkError(
            "action chunk",
            got=f"{np.count_nonzero(~np.isfinite(chunk.actions))} non-finite values",
            expected="finite numbers; the whole chunk is refused",
            fix="run `lightvla verify` on the engine",
        )
