"""The limits of this machine, and the bound that follows from them."""

from __future__ import annotations

import pytest

from lightvla_ros.backends import roofline
from lightvla_ros.backends.roofline import Roofline, measure_roofline
from lightvla_ros.core.errors import EngineError


def test_both_limits_of_this_machine_are_measured() -> None:
    measured = measure_roofline(1)
    assert measured.bytes_per_number == 4
    assert measured.gflops > 0
    assert measured.gbps > 0
    assert "CPU with 1 threads" in str(measured)


def test_the_tighter_limit_bounds_a_stage() -> None:
    limits = Roofline(hardware="one", bytes_per_number=4, gflops=100, gbps=10)
    assert limits.bound_ms(flops=1e9, num_bytes=1e6) == pytest.approx(10.0)
    assert limits.bound_ms(flops=1e6, num_bytes=1e9) == pytest.approx(100.0)


def test_of_two_measurements_the_higher_limits_count() -> None:
    disturbed, quiet = (
        Roofline(hardware="two", bytes_per_number=4, gflops=50, gbps=30),
        Roofline(hardware="two", bytes_per_number=4, gflops=90, gbps=20),
    )
    assert disturbed.best(quiet) == Roofline(hardware="two", bytes_per_number=4, gflops=90, gbps=30)
    assert quiet.best(None) == quiet


def test_a_machine_that_cannot_measure_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roofline, "__name__", "lightvla_ros.backends.no_such_module")
    with pytest.raises(EngineError, match="no_such_module"):
        measure_roofline(1)
