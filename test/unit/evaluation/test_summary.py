import pytest

from lightvla_ros.evaluation.rollout import EpisodeResult
from lightvla_ros.evaluation.summary import Percentiles, summarize, wilson_interval


def episode(steps: int, ages_ms: tuple[float, ...], *, success: bool, error: str = "") -> EpisodeResult:
    return EpisodeResult(
        seed=0,
        instruction="go",
        told="go",
        success=success,
        steps=steps,
        retained=(steps, steps + 2),
        ages_ms=ages_ms,
        stages_ms={"vision": (1.0, 3.0)},
        error=error,
    )


def test_steps_without_an_action_lower_the_control_rate() -> None:
    summary = summarize([episode(4, (0.0, 50.0), success=True), episode(6, (100.0,) * 3, success=False)])
    assert summary.effective_control_hz == pytest.approx(10.0)
    assert summary.stale_action_ratio == pytest.approx(0.5)
    assert summary.action_age == Percentiles(p50_ms=100.0, p95_ms=100.0)
    assert summary.stages == {"vision": Percentiles(p50_ms=2.0, p95_ms=3.0)}
    assert (summary.steps_mean, summary.retained_min, summary.retained_max) == (4.0, 4, 8)


def test_an_error_is_no_failure_of_the_policy() -> None:
    summary = summarize([episode(4, (0.0,), success=True), episode(9, (), success=False, error="crash")])
    assert (summary.episodes, summary.errors, summary.successes, summary.success) == (1, 1, 1, 1.0)
    assert summary.interval == wilson_interval(1, 1)
    assert summary.retained_max == 6


def test_no_episode_says_nothing() -> None:
    summary = summarize([])
    assert (summary.episodes, summary.interval, summary.steps_mean) == (0, (0.0, 1.0), None)
    assert (summary.effective_control_hz, summary.stale_action_ratio, summary.action_age) == (0.0, 0.0, None)


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [(0, 10, 0.0, 0.2775), (8, 10, 0.4902, 0.9433), (50, 50, 0.9287, 1.0)],
)
def test_the_interval_of_a_success_rate_is_wilsons(
    successes: int, trials: int, low: float, high: float
) -> None:
    assert wilson_interval(successes, trials) == pytest.approx((low, high), abs=1e-4)


def test_no_trial_says_nothing() -> None:
    assert wilson_interval(0, 0) == (0.0, 1.0)
