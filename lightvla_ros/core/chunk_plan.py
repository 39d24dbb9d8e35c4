"""A chunk laid out in time, and how one that overlaps earlier ones is joined with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

# Which plan [P] has an action at which step [T] -> their weights, float64 [P, T].
_Weigh = Callable[[NDArray[np.bool_]], NDArray[np.float64]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Plan:
    """Actions in time: step i begins at `begins_ns + i * step_period_ns` and lasts one period.

    Attributes:
        actions: float32 [T, action_dim], T >= 1.
        stamp_ns: stamp of the observation they answer.
        begins_ns: when step 0 begins.
        step_period_ns: time between two steps.
        interpolates: whether an action is a position that is passed when its step begins, on the straight
            way to the next one; else it holds for the whole step. The last dimension, the gripper, always
            holds.
    """

    actions: NDArray[np.float32]
    stamp_ns: int
    begins_ns: int
    step_period_ns: int
    interpolates: bool = False

    @property
    def ends_ns(self) -> int:
        """When the last step is over."""
        return self.begins_ns + len(self.actions) * self.step_period_ns

    @property
    def says_until_ns(self) -> int:
        """When the last action is reached; a position is only held from there on, which is no opinion."""
        return self.ends_ns - self.step_period_ns * self.interpolates

    def begin_of_step_ns(self, now_ns: int) -> int:
        """When the step due at a time began."""
        return now_ns - (now_ns - self.begins_ns) % self.step_period_ns

    def begins_of_steps_ns(self) -> NDArray[np.int64]:
        """When each step begins; int64 [T]."""
        return self.begins_ns + self.step_period_ns * np.arange(len(self.actions), dtype=np.int64)

    def sample(self, times_ns: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Look actions up by time.

        Args:
            times_ns: int64 [n].

        Returns:
            float32 [n, action_dim], and bool [n], whether there is an action; where not, a row is anything.
        """
        index, passed_ns = np.divmod(times_ns - self.begins_ns, self.step_period_ns)
        last = len(self.actions) - 1
        is_covered = (index >= 0) & (index <= last)
        index = index.clip(0, last)
        actions = self.actions[index]
        if self.interpolates:
            share = (passed_ns / self.step_period_ns).astype(np.float32)[:, None]
            following = self.actions[np.minimum(index + 1, last)]
            actions[:, :-1] += share * (following - actions)[:, :-1]
        return actions, is_covered


def blend(new: Plan, old: Plan, *, now_ns: int, new_weight: float) -> Plan:
    """Join a plan with the one it replaces: w new + (1 - w) old wherever both have a step.

    A step already begun is compared with what the old plan does now, never with its past. The gripper
    stays the new plan's.

    Args:
        new: the plan that takes over.
        old: the plan in force.
        now_ns: when it takes over.
        new_weight: w, 0 < w <= 1.
    """
    weights = np.array([[1.0 - new_weight], [new_weight]])
    return _join([old, new], now_ns, lambda covered: weights * covered)


def ensemble(new: Plan, earlier: Sequence[Plan], *, now_ns: int, decay: float) -> Plan:
    """Join a plan with all earlier ones that have a step at the same time.

    Step by step the mean of what they say, weighted by exp(-m i) where i = 0 is the oldest of them
    (temporal ensembling of ACT, arXiv 2304.13705, algorithm 2). The past and the gripper are treated as in
    `blend`.

    Args:
        new: the plan that takes over.
        earlier: plans as their policy gave them, oldest first.
        now_ns: when it takes over.
        decay: m >= 0.
    """
    return _join(
        [*earlier, new], now_ns, lambda covered: np.exp(-decay * (np.cumsum(covered, axis=0) - 1)) * covered
    )


def _join(plans: Sequence[Plan], now_ns: int, weigh: _Weigh) -> Plan:
    """Average what plans say at the steps of the last of them, which are not over yet."""
    new = plans[-1]
    begins = new.begins_of_steps_ns()
    is_ahead = begins + new.step_period_ns > now_ns
    rows, covered = [], []
    for plan in plans[:-1]:
        times = np.maximum(begins, now_ns)
        actions, is_covered = plan.sample(times)
        rows.append(actions)
        covered.append(is_covered & is_ahead & (times <= plan.says_until_ns))
    said = np.stack([*rows, new.actions])
    has_action = np.stack([*covered, np.ones(len(begins), dtype=np.bool_)])
    said = np.where(has_action[:, :, None], said, new.actions)
    weights = weigh(has_action)[:, :, None]
    mean = (weights * said).sum(axis=0) / weights.sum(axis=0)
    # Rounding must not lead out of what was said.
    joined = mean.clip(said.min(axis=0), said.max(axis=0)).astype(np.float32)
    joined[:, -1] = new.actions[:, -1]
    return replace(new, actions=joined)
