"""Limits: what is too far, too fast or outside is cut, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightvla_ros.core.errors import ConfigError
from lightvla_ros.core.limits import ActionLimiter, limit_delta, limit_norm
from lightvla_ros.core.output_config import LimitsConfig

STEP_S = 0.05
SECOND_NS = 1_000_000_000


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


@pytest.mark.parametrize(
    ("limits", "linear", "angular"),
    [
        ({"max_linear_m_s": 0.2, "max_angular_rad_s": 0.4}, 0.01, 0.02),
        ({"max_linear_step_m": 0.01, "max_angular_step_rad": 0.02}, 0.01, 0.02),
        ({"max_linear_m_s": 0.2, "max_linear_step_m": 0.004}, 0.004, 0.15),
    ],
)
def test_a_step_is_limited_per_step_and_per_second(
    limits: dict[str, float], linear: float, angular: float
) -> None:
    delta = np.array([0.05, 0.0, 0.0, 0.0, 0.0, 0.5])
    assert limit_delta(delta, None, LimitsConfig(**limits), STEP_S)
    np.testing.assert_allclose(delta, [linear, 0.0, 0.0, 0.0, 0.0, angular])


BOX = LimitsConfig(workspace_min_m=(0.0, -0.5, 0.1), workspace_max_m=(0.6, 0.5, 1.0))


def test_a_step_ends_at_the_wall_of_the_workspace_and_slides_along_it() -> None:
    delta = np.array([0.03, 0.02, 0.0, 0.1, 0.0, 0.0])
    assert limit_delta(delta, np.array([0.58, 0.0, 0.5]), BOX, STEP_S)
    np.testing.assert_allclose(delta, [0.02, 0.02, 0.0, 0.1, 0.0, 0.0], atol=1e-12)


@pytest.mark.parametrize(("x", "outwards"), [(0.7, 0.03), (-0.1, -0.03)])
def test_outside_of_the_workspace_one_may_come_back_but_go_no_further(x: float, outwards: float) -> None:
    outside = np.array([x, 0.0, 0.5])
    further, back = np.array([outwards, 0, 0, 0, 0, 0.0]), np.array([-outwards, 0, 0, 0, 0, 0.0])
    assert limit_delta(further, outside, BOX, STEP_S)
    assert further[0] == 0.0
    assert not limit_delta(back, outside, BOX, STEP_S)
    assert back[0] == -outwards


@given(
    st.lists(st.floats(-1, 1), min_size=3, max_size=3), st.lists(st.floats(-0.2, 0.2), min_size=6, max_size=6)
)
def test_no_step_from_inside_leaves_the_workspace(position: list[float], step: list[float]) -> None:
    here = np.clip(position, BOX.workspace_min_m, BOX.workspace_max_m)
    delta = np.array(step)
    limit_delta(delta, here, BOX, STEP_S)
    target = here + delta[:3]
    assert (target >= np.array(BOX.workspace_min_m) - 1e-8).all()
    assert (target <= np.array(BOX.workspace_max_m) + 1e-8).all()


def actions(*rows: list[float]) -> np.ndarray:
    return np.array(rows, dtype=np.float32)


def test_within_the_limits_an_action_passes_bit_by_bit() -> None:
    limiter = ActionLimiter(LimitsConfig(action_min=(-1.0,), action_max=(1.0,)), 3)
    action = actions([0.1, -0.7, 5.0])[0]
    limited, is_cut = limiter.limit(action, 0)
    assert not is_cut and limited.tobytes() == action.tobytes()


def test_each_dimension_has_its_own_bounds() -> None:
    limiter = ActionLimiter(LimitsConfig(action_min=(-0.5, -1.0), action_max=(0.5, 1.0)), 3)
    limited, is_cut = limiter.limit(actions([2.0, -2.0, 3.0])[0], 0)
    assert is_cut and limited.tolist() == [0.5, -1.0, 3.0]


def test_change_is_limited_by_the_time_that_passed() -> None:
    limiter = ActionLimiter(LimitsConfig(max_change_per_s=(2.0,)), 2)
    assert limiter.limit(actions([0.0, 1.0])[0], 0)[0][0] == 0.0
    limited, is_cut = limiter.limit(actions([1.0, -1.0])[0], SECOND_NS // 10)
    assert is_cut and limited.tolist() == pytest.approx([0.2, -1.0])
    limited, is_cut = limiter.limit(actions([1.0, -1.0])[0], SECOND_NS)
    assert not is_cut and limited[0] == 1.0


def test_a_robot_that_stood_still_starts_from_zero_where_that_is_standing_still() -> None:
    limiter = ActionLimiter(LimitsConfig(max_change_per_s=(1.0,)), 2)
    limiter.limit(actions([0.8, 0.0])[0], 0)
    limiter.stand_still(SECOND_NS, is_zero=True)
    limited, _ = limiter.limit(actions([0.8, 0.0])[0], SECOND_NS + SECOND_NS // 10)
    assert limited[0] == pytest.approx(0.1)


def test_a_robot_that_holds_a_position_starts_from_it() -> None:
    limiter = ActionLimiter(LimitsConfig(max_change_per_s=(1.0,)), 2)
    limiter.limit(actions([0.8, 0.0])[0], 0)
    limiter.stand_still(SECOND_NS, is_zero=False)
    limited, _ = limiter.limit(actions([2.0, 0.0])[0], SECOND_NS + SECOND_NS // 10)
    assert limited[0] == pytest.approx(0.9)


def test_steps_ahead_are_limited_from_one_to_the_next() -> None:
    limiter = ActionLimiter(LimitsConfig(max_change_per_s=(2.0,)), 2)
    limiter.limit(actions([0.0, 0.0])[0], 0)
    ahead = limiter.limit_steps(
        actions([1.0, 0.0], [1.0, 1.0], [-1.0, 1.0]), first_s=STEP_S / 2, period_s=STEP_S
    )
    np.testing.assert_allclose(ahead, [[0.05, 0.0], [0.15, 1.0], [0.05, 1.0]], rtol=1e-6)


@pytest.mark.parametrize("name", ["action_min", "action_max", "max_change_per_s"])
def test_limits_for_another_number_of_dimensions_are_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"limits.{name}; got 2 numbers; expected one for all, or 6"):
        ActionLimiter(LimitsConfig(**{name: (1.0, 1.0)}), 7)


@pytest.mark.parametrize(
    "limits",
    [
        {"action_min": (1.0,), "action_max": (-1.0,)},
        {"workspace_min_m": (0.0, 0.0, 1.0), "workspace_max_m": (1.0, 1.0, 1.0)},
        {"workspace_min_m": (0.0, 0.0)},
    ],
)
def test_bounds_that_enclose_nothing_are_refused(limits: dict[str, tuple[float, ...]]) -> None:
    with pytest.raises(ConfigError, match="action_max|workspace_max_m"):
        LimitsConfig(**limits)
