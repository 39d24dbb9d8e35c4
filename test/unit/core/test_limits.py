"""Speed limits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightvla_ros.core.limits import limit_norm


def test_a_slow_vector_is_left_alone() -> None:
    vector = np.array([0.3, 0.0, 0.4])
    assert not limit_norm(vector, 0.5)
    assert vector.tolist() == [0.3, 0.0, 0.4]


def test_a_fast_vector_is_shortened_and_keeps_its_direction() -> None:
    vector = np.array([3.0, 0.0, -4.0])
    assert limit_norm(vector, 1.0)
    np.testing.assert_allclose(vector, [0.6, 0.0, -0.8])


def test_a_limit_of_zero_stops() -> None:
    vector = np.array([1.0, 2.0, 3.0])
    assert limit_norm(vector, 0.0)
    assert not vector.any()


@given(st.lists(st.floats(-1e6, 1e6), min_size=3, max_size=3), st.floats(0.0, 100.0))
def test_no_vector_is_longer_than_the_limit(values: list[float], maximum: float) -> None:
    vector = np.array(values)
    limit_norm(vector, maximum)
    assert np.linalg.norm(vector) <= maximum * (1 + 1e-9) or np.linalg.norm(vector) == pytest.approx(maximum)
