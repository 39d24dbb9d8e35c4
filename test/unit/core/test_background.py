"""The thread for work that nobody waits for."""

from __future__ import annotations

import threading

from lightvla_ros.core.background import Background

TIMEOUT_S = 10.0


def raised(error: Exception) -> None:
    raise error


def test_items_are_handled_in_order_in_another_thread() -> None:
    handled: list[tuple[int, int]] = []
    done = threading.Event()

    def handle(item: int) -> None:
        handled.append((item, threading.get_ident()))
        if item == 4:
            done.set()

    background = Background[int](name="test", handle=handle, on_error=raised)
    for item in range(5):
        background.submit(item)
    assert done.wait(TIMEOUT_S)
    background.stop()
    assert [item for item, _ in handled] == [0, 1, 2, 3, 4]
    assert threading.get_ident() not in {thread for _, thread in handled}


def test_the_oldest_of_too_many_are_dropped_and_nobody_waits() -> None:
    begun, go_on = threading.Event(), threading.Event()
    handled: list[int] = []

    def handle(item: int) -> None:
        begun.set()
        assert go_on.wait(TIMEOUT_S)
        handled.append(item)

    background = Background[int](name="test", handle=handle, on_error=raised, size=2)
    background.submit(0)
    assert begun.wait(TIMEOUT_S)
    for item in range(1, 6):
        background.submit(item)
    assert background.dropped == 3
    go_on.set()
    while len(handled) < 3:
        assert background._thread.is_alive()
    background.stop()
    assert handled == [0, 4, 5]


def test_a_failure_is_told_and_the_next_item_handled() -> None:
    errors: list[Exception] = []
    handled = threading.Event()

    def handle(item: int) -> None:
        if item == 0:
            raise ValueError("no")
        handled.set()

    background = Background[int](name="test", handle=handle, on_error=errors.append)
    background.submit(0)
    background.submit(1)
    assert handled.wait(TIMEOUT_S)
    background.stop()
    assert [str(error) for error in errors] == ["no"]
    assert not background._thread.is_alive()
