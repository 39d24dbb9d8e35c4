"""Notice that pruning has collapsed: the loss falls, and at test time nothing is left to see.

In training each query's token is there, as often as it was chosen; at test each token is there once. A
policy can learn to live on noise and on duplicates, keep a handful of tokens at test and fail every time.
"""

from __future__ import annotations

from dataclasses import dataclass

from lightvla_ros.core.errors import LightVlaError
from lightvla_ros.learn.held_out import HeldOut


class CollapseError(LightVlaError):
    """The pruner's choices have collapsed; more training will not mend it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CollapseRule:
    """When a pruned stage is given up.

    Attributes:
        min_retained: share of the visual tokens that held-out chunks must retain at test time on average.
        max_gap: how many times its error in training a held-out chunk's error at test time may be.
        reports: so many bad reports in a row end the training.
        grace: share of the stage that may pass first; an unpruned policy needs some steps to adapt.
    """

    min_retained: float = 0.03
    max_gap: float = 1.5
    reports: int = 4
    grace: float = 0.25

    def floor(self, num_tokens: int, num_queries: int) -> float:
        """Return the smallest acceptable mean count; few queries cannot retain much."""
        return max(1.0, min(self.min_retained * num_tokens, num_queries / 4))


class CollapseGuard:
    """Count bad reports in a row.

    Args:
        rule: what is bad.
        floor: smallest acceptable mean count.
        bad_reports: how many there have been, when a run is resumed.
    """

    def __init__(self, rule: CollapseRule, *, floor: float, bad_reports: int = 0) -> None:
        self._rule = rule
        self._floor = floor
        self._last: list[str] = []
        self.bad_reports = bad_reports

    def take(self, held_out: HeldOut, progress: float) -> None:
        """Take a report at this share of the stage's steps."""
        self._last = self._faults(held_out) if progress > self._rule.grace else []
        self.bad_reports = self.bad_reports + 1 if self._last else 0

    def check(self) -> None:
        """Judge the reports so far.

        Raises:
            CollapseError: there are too many bad ones in a row.
        """
        if self.bad_reports < self._rule.reports:
            return
        raise CollapseError(
            "pruning has collapsed",
            got=f"{' and '.join(self._last)}, {self.bad_reports} bad reports in a row",
            expected=f"at least {self._floor:.1f} tokens at test time on average, and an error there of at "
            f"most {self._rule.max_gap:g} times that in training",
            fix="start from a trained unpruned policy (--start run/unpruned, or more --unpruned-steps)",
        )

    def _faults(self, held_out: HeldOut) -> list[str]:
        faults = []
        if held_out.retained_mean < self._floor:
            faults.append(f"{held_out.retained_mean:.1f} tokens retained at test time")
        if held_out.hard_error > self._rule.max_gap * held_out.soft_error:
            faults.append(
                f"an action error of {held_out.hard_error:.3f} at test time, "
                f"{held_out.soft_error:.3f} in training"
            )
        return faults
