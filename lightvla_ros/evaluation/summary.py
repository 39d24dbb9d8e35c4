"""What episodes say together: success with its interval, and how many tokens were retained."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from lightvla_ros.evaluation.rollout import EpisodeResult

_Z_95 = 1.959964


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Results of many episodes.

    Attributes:
        episodes: how many.
        successes: how many succeeded.
        interval: 95 % Wilson score interval of the success rate.
        steps_mean: control steps of the episodes that succeeded; None without one.
        retained_mean: visual tokens retained per inference.
        retained_std: their standard deviation.
        retained_min: the fewest.
        retained_max: the most.
    """

    episodes: int
    successes: int
    interval: tuple[float, float]
    steps_mean: float | None
    retained_mean: float
    retained_std: float
    retained_min: int
    retained_max: int

    @property
    def success(self) -> float:
        """Success rate."""
        return self.successes / max(self.episodes, 1)


def summarize(results: Sequence[EpisodeResult]) -> Summary:
    """Summarise episodes; no episodes say nothing."""
    successes = sum(result.success for result in results)
    steps = [result.steps for result in results if result.success]
    retained = [count for result in results for count in result.retained]
    return Summary(
        episodes=len(results),
        successes=successes,
        interval=wilson_interval(successes, len(results)),
        steps_mean=statistics.fmean(steps) if steps else None,
        retained_mean=statistics.fmean(retained) if retained else 0.0,
        retained_std=statistics.pstdev(retained) if retained else 0.0,
        retained_min=min(retained, default=0),
        retained_max=max(retained, default=0),
    )


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """Return the 95 % Wilson score interval of a success rate; (0, 1) without trials."""
    if trials == 0:
        return 0.0, 1.0
    p, z2 = successes / trials, _Z_95**2
    center = (p + z2 / (2 * trials)) / (1 + z2 / trials)
    half = _Z_95 * math.sqrt(p * (1 - p) / trials + z2 / (4 * trials**2)) / (1 + z2 / trials)
    return max(0.0, center - half), min(1.0, center + half)
