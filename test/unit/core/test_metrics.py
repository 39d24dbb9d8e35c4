"""Rates and percentiles."""

from __future__ import annotations

import pytest

from lightvla_ros.core.metrics import RateMeter, Window


def test_the_rate_is_the_mean_of_the_marks_kept() -> None:
    meter = RateMeter(window=4)
    for now_ns in (0, 10**9, 2 * 10**9, 2_050_000_000, 2_100_000_000, 2_150_000_000):
        meter.mark(now_ns)
    assert meter.rate_hz(2_200_000_000) == pytest.approx(20.0)


def test_a_silent_topic_has_rate_zero() -> None:
    meter = RateMeter(silent_after_ns=100)
    meter.mark(0)
    assert meter.rate_hz(10) == 0.0
    meter.mark(50)
    assert meter.rate_hz(150) > 0.0
    assert meter.rate_hz(151) == 0.0


def test_percentiles_are_those_of_the_newest_samples() -> None:
    window = Window(size=3)
    assert window.percentiles(50) == () and window.last is None
    for value in (100.0, 1.0, 2.0, 3.0):
        window.add(value)
    assert window.percentiles(0, 50, 100) == (1.0, 2.0, 3.0)
    assert window.last == 3.0
