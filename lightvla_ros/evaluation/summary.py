"""What episodes say together: success with its interval, tokens retained, and how timely the actions were."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from lightvla_ros.evaluation.rollout import EpisodeResult
from lightvla_ros.sim.world import CONTROL_PERIOD_S

_Z_95 = 1.959964


@dataclass(frozen=True, slots=True, kw_only=True)
class Percentiles:
    """Median and 95th percentile, ms."""

    p50_ms: float
    p95_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Results of many episodes.

    Attributes:
        episodes: how many were judged.
        errors: how many could not be, for reasons other than the policy's skill.
        successes: how many succeeded.
        interval: 95 % Wilson score interval of the success rate.
        steps_mean: control steps of the episodes that succeeded; None without one.
        retained_mean: visual tokens retained per inference.
        retained_std: their standard deviation.
        retained_min: the fewest.
        retained_max: the most.
        effective_control_hz: actions executed per second of the world; steps that stood still are none.
        stale_action_ratio: share of steps for which no action was due in time.
        action_age: from an observation's stamp to the command of an action made from it; None without one.
        stages: stage -> latency; empty where the policy tells none.
    """

    episodes: int
    errors: int
    successes: int
    interval: tuple[float, float]
    steps_mean: float | None
    retained_mean: float
    retained_std: float
    retained_min: int
    retained_max: int
    effective_control_hz: float
    stale_action_ratio: float
    action_age: Percentiles | None
    stages: dict[str, Percentiles]

    @property
    def success(self) -> float:
        """Success rate."""
        return self.successes / max(self.episodes, 1)


def summarize(results: Sequence[EpisodeResult]) -> Summary:
    """Summarise episodes; no episodes say nothing."""
    judged = [result for result in results if not result.error]
    successes = sum(result.success for result in judged)
    winning_steps = [result.steps for result in judged if result.success]
    retained = [count for result in judged for count in result.retained]
    ages = [age for result in judged for age in result.ages_ms]
    all_steps = sum(result.steps for result in judged)
    acting = len(ages) / all_steps if all_steps else 0.0
    stages = dict.fromkeys(stage for result in judged for stage in result.stages_ms)
    return Summary(
        episodes=len(judged),
        errors=len(results) - len(judged),
        successes=successes,
        interval=wilson_interval(successes, len(judged)),
        steps_mean=statistics.fmean(winning_steps) if winning_steps else None,
        retained_mean=statistics.fmean(retained) if retained else 0.0,
        retained_std=statistics.pstdev(retained) if retained else 0.0,
        retained_min=min(retained, default=0),
        retained_max=max(retained, default=0),
        effective_control_hz=acting / CONTROL_PERIOD_S,
        stale_action_ratio=1.0 - acting if all_steps else 0.0,
        action_age=_percentiles(ages) if ages else None,
        stages={
            stage: _percentiles(time for result in judged for time in result.stages_ms.get(stage, ()))
            for stage in stages
        },
    )


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """Return the 95 % Wilson score interval of a success rate; (0, 1) without trials."""
    if trials == 0:
        return 0.0, 1.0
    p, z2 = successes / trials, _Z_95**2
    center = (p + z2 / (2 * trials)) / (1 + z2 / trials)
    half = _Z_95 * math.sqrt(p * (1 - p) / trials + z2 / (4 * trials**2)) / (1 + z2 / trials)
    return max(0.0, center - half), min(1.0, center + half)


def _percentiles(values_ms: Iterable[float]) -> Percentiles:
    p50, p95 = np.percentile(list(values_ms), [50, 95])
    return Percentiles(p50_ms=float(p50), p95_ms=float(p95))
