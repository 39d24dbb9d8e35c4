"""The fixed-rate thread: it outlives its ticks' failures and never bursts."""

from __future__ import annotations

import os
import queue
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightvla_ros.core.pacing import Deadlines, FixedRateThread

TIMEOUT_S = 10.0


def test_a_failing_tick_is_reported_and_the_next_one_comes() -> None:
    errors: queue.Queue[Exception] = queue.Queue()

    def tick() -> None:
        raise ValueError("broken tick")

    pacer = FixedRateThread(name="test", rate_hz=200.0, tick=tick, on_error=errors.put)
    pacer.start()
    assert all(isinstance(errors.get(timeout=TIMEOUT_S), ValueError) for _ in range(3))
    pacer.stop()


def test_ticks_missed_during_a_stall_are_counted_and_not_made_up_for() -> None:
    starts: list[int] = []
    enough = threading.Event()

    def tick() -> None:
        starts.append(time.monotonic_ns())
        if len(starts) == 1:
            time.sleep(0.055)
        if len(starts) == 4:
            enough.set()

    pacer = FixedRateThread(name="test", rate_hz=100.0, tick=tick, on_error=lambda error: None)
    pacer.start()
    assert enough.wait(TIMEOUT_S)
    pacer.stop()
    assert pacer.missed >= 4
    gaps = [later - earlier for earlier, later in zip(starts[1:], starts[2:], strict=False)]
    assert min(gaps) > 1_000_000, "ticks came in a burst"


def test_no_tick_comes_after_stop() -> None:
    ticks: queue.Queue[int] = queue.Queue()
    pacer = FixedRateThread(
        name="test", rate_hz=200.0, tick=lambda: ticks.put(1), on_error=lambda error: None
    )
    pacer.start()
    ticks.get(timeout=TIMEOUT_S)
    pacer.stop()
    seen = ticks.qsize()
    assert ticks.qsize() == seen and not any(thread.name == "test" for thread in threading.enumerate())


def test_a_deadline_met_late_does_not_shift_the_next_one() -> None:
    deadlines = Deadlines(period_ns=100, start_ns=1000)
    assert deadlines.reached(1103) == (3, 0)
    assert deadlines.reached(1299) == (99, 0)
    assert deadlines.next_ns == 1300


def test_deadlines_that_are_over_are_skipped_and_counted() -> None:
    deadlines = Deadlines(period_ns=100, start_ns=0)
    assert deadlines.reached(555) == (55, 4)
    assert deadlines.next_ns == 600


@given(st.integers(1, 10**9), st.integers(0, 10**12), st.lists(st.integers(0, 10**10), min_size=1))
def test_the_next_deadline_is_a_multiple_of_the_period_and_ahead(
    period_ns: int, start_ns: int, pauses: list[int]
) -> None:
    deadlines, now_ns, ticks = Deadlines(period_ns, start_ns), start_ns, 0
    for pause in pauses:
        now_ns = max(now_ns + pause, deadlines.next_ns)
        late_ns, skipped = deadlines.reached(now_ns)
        ticks += 1 + skipped
        assert 0 <= late_ns < period_ns
        assert now_ns < deadlines.next_ns == start_ns + (ticks + 1) * period_ns


def scheduler_in_tick(priority: int) -> tuple[int, list[str]]:
    seen: queue.Queue[int] = queue.Queue()
    refusals: list[str] = []
    pacer = FixedRateThread(
        name="test",
        rate_hz=200.0,
        tick=lambda: seen.put(os.sched_getscheduler(0)),
        on_error=lambda error: None,
        priority=priority,
        on_unprivileged=refusals.append,
    )
    pacer.start()
    policy = seen.get(timeout=TIMEOUT_S)
    pacer.stop()
    return policy, refusals


def test_the_thread_has_real_time_priority_or_says_once_what_to_do() -> None:
    policy, refusals = scheduler_in_tick(priority=10)
    if policy == os.SCHED_FIFO:
        assert refusals == []
    else:
        assert len(refusals) == 1
        assert "rtprio" in refusals[0]
    assert os.sched_getscheduler(0) != os.SCHED_FIFO, "only the publisher's thread is meant"


def test_without_permission_the_thread_ticks_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    _, refusals = scheduler_in_tick(priority=10)
    assert len(refusals) == 1
    assert "Operation not permitted" in refusals[0]


def test_no_priority_is_asked_for_unless_wanted() -> None:
    assert scheduler_in_tick(priority=0) == (os.sched_getscheduler(0), [])
