"""Rates, gaps, ages and pairs of messages that were heard."""

from __future__ import annotations

import pytest

from lightvla_ros.core.graph_survey import Arrival, Topic, pairing


def topic(*times: tuple[int, int | None], ended_ns: int = 0) -> Topic:
    """Messages by (arrival ms, stamp ms)."""
    return Topic(
        name="/topic",
        type_name="type",
        ended_ns=ended_ns,
        arrivals=tuple(
            Arrival(
                monotonic_ns=arrived * 10**6,
                system_ns=(arrived + 1000) * 10**6,
                sim_ns=None if arrived == 0 else arrived * 10**6,
                stamp_ns=None if stamp is None else stamp * 10**6,
            )
            for arrived, stamp in times
        ),
    )


def test_a_rate_needs_two_messages() -> None:
    assert topic().rate_hz is None
    assert topic((0, 0)).rate_hz is None
    assert topic((0, 0), (0, 1)).rate_hz is None
    assert topic((0, 0), (50, 1), (100, 2)).rate_hz == pytest.approx(20.0)


def test_the_silence_at_the_end_is_a_gap_too() -> None:
    messages = ((0, 0), (50, 1), (200, 2))
    assert topic(*messages, ended_ns=250 * 10**6).longest_gap_s == pytest.approx(0.15)
    assert topic(*messages, ended_ns=10**9).longest_gap_s == pytest.approx(0.8)
    assert topic().longest_gap_s == 0.0


def test_ages_are_by_the_clock_that_the_node_keeps() -> None:
    heard = topic((0, 900), (100, 90), (200, None))
    assert heard.ages_s(uses_sim_time=False) == pytest.approx([0.1, 1.01])
    assert heard.ages_s(uses_sim_time=True) == pytest.approx([0.01])


def test_repeats_and_steps_back_are_told_apart() -> None:
    assert (topic((0, 1), (1, 1), (2, 2)).num_repeats, topic((0, 1), (1, 1)).runs_backwards) == (1, False)
    assert topic((0, 2), (1, 1)).runs_backwards


def test_cameras_agree_by_their_nearest_stamps() -> None:
    first, second = [0, 50_000_000, 100_000_000], [10_000_000, 60_000_000, 200_000_000]
    found = pairing([first, second], 0.03)
    assert found is not None
    assert found.skew_s == pytest.approx(0.01)
    assert found.share == pytest.approx(2 / 3)


def test_one_camera_or_a_silent_one_has_no_pairs() -> None:
    assert pairing([[1]], 0.1) is None
    assert pairing([[1], []], 0.1) is None
