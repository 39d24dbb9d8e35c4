"""Quantile normalisation, statistics keys and the gripper convention."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lightvla_ros.core.errors import ConfigError, SpecError
from lightvla_ros.core.normalize import (
    ActionNormalizer,
    NormalizationStats,
    ProprioNormalizer,
    binarize_gripper,
    statistics_for,
)

ENTRY = {
    "action": {"q01": [-1.0, 0.0, 0.0], "q99": [3.0, 2.0, 1.0], "mask": [True, True, False]},
    "proprio": {"q01": [0.0, -2.0], "q99": [1.0, 2.0]},
}


def make_normalizer() -> ActionNormalizer:
    return ActionNormalizer([-1.0, 0.0, 0.0], [3.0, 2.0, 1.0], [True, True, False])


def test_the_ends_of_the_model_range_are_the_quantiles_and_the_gripper_passes_through() -> None:
    actions = make_normalizer().unnormalize([[-1.0, -1.0, 0.3], [1.0, 1.0, 0.7]])
    assert actions.dtype == np.float64
    np.testing.assert_allclose(actions, [[-1.0, 0.0, 0.3], [3.0, 2.0, 0.7]], atol=3e-8)


def test_the_first_dimension_of_libero_spatial_matches_the_published_fixture() -> None:
    # The quantiles are those of the public data set; the published middle is 0.0960134.
    normalizer = ActionNormalizer([-0.7454732114076613], [0.9375])
    assert normalizer.unnormalize([0.0])[0] == pytest.approx(0.0960134, abs=1e-6)


def test_model_output_beyond_one_is_not_clipped() -> None:
    assert make_normalizer().unnormalize([2.0, 0.0, 0.0])[0] == pytest.approx(5.0)


def test_training_targets_are_clipped_except_the_gripper() -> None:
    np.testing.assert_allclose(make_normalizer().normalize([9.0, -9.0, 5.0]), [1.0, -1.0, 5.0])


@given(arrays(np.float64, (4, 3), elements=st.floats(-1.0, 1.0)))
def test_normalize_undoes_unnormalize(normalized: np.ndarray) -> None:
    normalizer = make_normalizer()
    np.testing.assert_allclose(
        normalizer.normalize(normalizer.unnormalize(normalized)), normalized, atol=1e-12
    )


def test_a_dimension_that_never_moved_stays_finite() -> None:
    normalizer = ActionNormalizer([0.5], [0.5])
    assert np.isfinite(normalizer.normalize([0.5])).all()
    assert normalizer.unnormalize([0.0])[0] == pytest.approx(0.5)


def test_without_a_mask_every_dimension_is_normalised() -> None:
    assert ActionNormalizer([0.0, 0.0], [2.0, 2.0]).unnormalize([1.0, 1.0]) == pytest.approx([2.0, 2.0])


def test_proprio_is_clipped_float32() -> None:
    proprio = ProprioNormalizer([0.0, -2.0, 0.0], [1.0, 2.0, 1.0]).normalize(np.array([0.5, 2.0, -7.0]))
    assert proprio.dtype == np.float32
    np.testing.assert_allclose(proprio, [0.0, 1.0, -1.0], atol=1e-6)


def test_the_gripper_becomes_minus_one_open_plus_one_closed_and_half_is_no_command() -> None:
    actions = np.array([[0.1, 0.7], [0.2, 0.2], [0.3, 0.5]])
    np.testing.assert_array_equal(binarize_gripper(actions), [[0.1, -1.0], [0.2, 1.0], [0.3, 0.0]])
    assert actions[0, 1] == 0.7, "the argument was edited"


def test_the_key_is_found_with_and_without_the_suffix() -> None:
    statistics = {"libero_goal_no_noops": {"a": 1}, "libero_object": {"b": 2}}
    assert statistics_for(statistics, "libero_goal") == ("libero_goal_no_noops", {"a": 1})
    assert statistics_for(statistics, "libero_goal_no_noops")[0] == "libero_goal_no_noops"
    assert statistics_for(statistics, "libero_object_no_noops")[0] == "libero_object"


def test_the_exact_key_wins_over_the_one_with_the_suffix() -> None:
    assert statistics_for({"a": {}, "a_no_noops": {}}, "a")[0] == "a"


def test_no_key_is_needed_for_a_single_entry() -> None:
    assert statistics_for({"tabletop": {"a": 1}}, None) == ("tabletop", {"a": 1})


@pytest.mark.parametrize(("statistics", "key"), [({"a": {}, "b": {}}, None), ({"a": {}, "b": {}}, "c")])
def test_an_unknown_or_ambiguous_key_names_the_known_ones(
    statistics: dict[str, dict], key: str | None
) -> None:
    with pytest.raises(ConfigError, match=r"\['a', 'b'\]"):
        statistics_for(statistics, key)


def test_empty_statistics_say_which_file_is_missing() -> None:
    with pytest.raises(ConfigError, match=r"dataset_statistics\.json"):
        statistics_for({}, None)


def test_stats_are_read_from_an_entry() -> None:
    stats = NormalizationStats.from_entry(ENTRY)
    np.testing.assert_array_equal(stats.action_q99, [3.0, 2.0, 1.0])
    np.testing.assert_array_equal(stats.action_mask, [True, True, False])
    np.testing.assert_array_equal(stats.proprio_q01, [0.0, -2.0])


@pytest.mark.parametrize(
    "entry", [{}, {"action": ENTRY["action"]}, {"action": {"q01": [0.0]}, "proprio": {}}]
)
def test_an_incomplete_entry_is_refused(entry: dict) -> None:
    with pytest.raises(ConfigError, match="statistics"):
        NormalizationStats.from_entry(entry)


@pytest.mark.parametrize(
    ("q01", "q99", "mask"),
    [
        ([0.0], [1.0, 1.0], None),
        ([], [], None),
        (["low"], [1.0], None),
        ([None], [1.0], None),
        ([0.0, [1.0]], [1.0, 1.0], None),
        ({"x": 0.0}, [1.0], None),
        ([np.nan], [1.0], None),
        ([0.0], [np.inf], None),
        ([2.0], [1.0], None),
        ([0.0], [1.0], [True, False]),
    ],
)
def test_bad_quantiles_and_masks_are_refused(
    q01: list[float], q99: list[float], mask: list[bool] | None
) -> None:
    with pytest.raises(ConfigError):
        ActionNormalizer(q01, q99, mask)


def test_an_array_of_another_length_is_refused() -> None:
    with pytest.raises(SpecError, match=r"\[\.\.\., 3\]"):
        make_normalizer().unnormalize(np.zeros((8, 7)))
    with pytest.raises(SpecError):
        ProprioNormalizer([0.0], [1.0]).normalize(np.zeros(2))
