"""Which sizes engines are built for, and which of them serves a length."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightvla_ros.backends.length_buckets import (
    Profile,
    bucket_for,
    default_prompt_buckets,
    default_retained_buckets,
    retained_profiles,
    suggest_buckets,
)
from lightvla_ros.core.errors import EngineError


def test_default_buckets_are_fine_where_pruned_sets_lie_and_end_at_all_tokens() -> None:
    assert default_retained_buckets(128) == (16, 32, 48, 64, 80, 96, 128)
    assert default_retained_buckets(512)[-3:] == (256, 384, 512)
    assert default_retained_buckets(8) == (8,)
    assert default_prompt_buckets(47) == (16, 32, 47)
    assert default_prompt_buckets(16) == (16,)


def test_four_profiles_cover_every_count_once() -> None:
    assert retained_profiles(default_retained_buckets(512)) == (
        Profile(1, 64, 64),
        Profile(65, 128, 128),
        Profile(129, 256, 256),
        Profile(257, 512, 512),
    )
    assert [p.max for p in retained_profiles(default_retained_buckets(128))] == [16, 32, 64, 128]
    assert retained_profiles((8,)) == (Profile(1, 8, 8),)


@given(st.sets(st.integers(1, 600), min_size=1))
def test_profiles_leave_no_gap_and_end_at_buckets(sizes: set[int]) -> None:
    buckets = sorted(sizes)
    profiles = retained_profiles(buckets)
    assert 1 <= len(profiles) <= 4
    assert profiles[0].min == 1
    assert profiles[-1].max == buckets[-1]
    assert all(after.min == before.max + 1 for before, after in zip(profiles, profiles[1:], strict=False))
    assert all(p.max in sizes and p.min <= p.opt <= p.max for p in profiles)


def test_a_length_gets_the_smallest_bucket_that_holds_it() -> None:
    buckets = (16, 32, 128)
    assert [bucket_for(k, buckets, "count") for k in (1, 16, 17, 128)] == [16, 16, 32, 128]


@pytest.mark.parametrize("length", [0, -1, 129])
def test_a_length_no_bucket_holds_is_refused(length: int) -> None:
    with pytest.raises(EngineError, match=r"retained count; got .*1 to 128"):
        bucket_for(length, (16, 128), "retained count")


def padding(histogram: dict[int, int], buckets: tuple[int, ...]) -> int:
    return sum(times * (bucket_for(k, buckets, "") - k) for k, times in histogram.items())


@given(st.dictionaries(st.integers(1, 40), st.integers(1, 9), min_size=1, max_size=7), st.integers(1, 4))
def test_suggested_buckets_pad_least(histogram: dict[int, int], max_buckets: int) -> None:
    suggested = suggest_buckets(histogram, 40, max_buckets)
    assert suggested[-1] == 40
    assert list(suggested) == sorted(set(suggested))
    assert len(suggested) <= max_buckets
    others = sorted(set(histogram) - {40})
    best = min(
        padding(histogram, (*chosen, 40))
        for size in range(max_buckets)
        for chosen in combinations(others, min(size, len(others)))
    )
    assert padding(histogram, suggested) == best
