"""A process that keeps ending is started again ever later, and then no more."""

from __future__ import annotations

from lightvla_ros.worker.restarts import RestartBudget


def test_each_restart_waits_twice_as_long_until_the_limit() -> None:
    budget = RestartBudget(max_restarts=4, window_s=60.0, first_delay_s=0.5)
    assert [budget.next_delay_s(t) for t in (0.0, 1.0, 2.0, 3.0, 4.0)] == [0.5, 1.0, 2.0, 4.0, None]


def test_restarts_longer_ago_than_the_window_are_forgotten() -> None:
    budget = RestartBudget(max_restarts=2, window_s=60.0, first_delay_s=0.5)
    assert [budget.next_delay_s(t) for t in (0.0, 59.0, 60.0, 61.0, 119.5)] == [0.5, 1.0, None, 1.0, 1.0]


def test_no_restart_at_all_can_be_asked_for() -> None:
    assert RestartBudget(max_restarts=0).next_delay_s(0.0) is None
