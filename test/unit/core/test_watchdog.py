"""Inputs that are missing, stale or refused; clocks that jump or stop."""

from __future__ import annotations

from lightvla_ros.core.watchdog import ClockGuard, ClockState, InputMonitor


def code(monitor: InputMonitor, now_ns: int) -> str | None:
    problem = monitor.problem(now_ns)
    return problem.code if problem else None


def test_an_input_is_awaited_then_missing_then_fresh_then_stale() -> None:
    monitor = InputMonitor(["wrist"], stale_after_ns=500)
    monitor.restart(1000)
    assert code(monitor, 1500) == "waiting:wrist"
    assert code(monitor, 1501) == "missing:wrist"
    monitor.accept("wrist", 1600)
    assert code(monitor, 2100) is None
    assert code(monitor, 2101) == "stale:wrist"


def test_staleness_counts_from_the_stamp_and_not_from_the_arrival() -> None:
    monitor = InputMonitor(["wrist"], stale_after_ns=500)
    for _ in range(3):
        monitor.accept("wrist", 0)
    assert code(monitor, 600) == "stale:wrist"


def test_a_refused_message_stops_until_a_usable_one_comes() -> None:
    monitor = InputMonitor(["wrist"], stale_after_ns=500)
    monitor.accept("wrist", 0)
    monitor.refuse("wrist", "it is green")
    problem = monitor.problem(1)
    assert problem is not None and (problem.code, problem.message) == ("refused:wrist", "it is green")
    monitor.accept("wrist", 2)
    assert code(monitor, 3) is None


def test_a_restart_waits_for_every_input_anew() -> None:
    monitor = InputMonitor(["wrist"], stale_after_ns=500)
    monitor.accept("wrist", 0)
    monitor.restart(10)
    assert code(monitor, 11) == "waiting:wrist"


def guard() -> ClockGuard:
    clock = ClockGuard(jump_ns=1000, stopped_ns=500)
    assert clock.update(10_000, 0) is ClockState.STEADY
    return clock


def test_time_that_passes_as_it_should_is_steady() -> None:
    clock = guard()
    assert [clock.update(10_000 + step, step) for step in (50, 100, 5000)] == [ClockState.STEADY] * 3


def test_time_that_runs_backwards_jumped() -> None:
    assert guard().update(9_999, 50) is ClockState.JUMPED


def test_time_that_runs_far_ahead_jumped() -> None:
    assert guard().update(11_051, 50) is ClockState.JUMPED


def test_after_a_jump_time_is_steady_again() -> None:
    clock = guard()
    clock.update(0, 50)
    assert clock.update(50, 100) is ClockState.STEADY


def test_time_that_stands_still_stopped_until_it_moves() -> None:
    clock = guard()
    states = [clock.update(10_000, now) for now in (500, 501)]
    assert states == [ClockState.STEADY, ClockState.STOPPED]
    assert clock.update(10_050, 550) is ClockState.STEADY
