"""The fixed-rate thread: it outlives its ticks' failures and never bursts."""

from __future__ import annotations

import queue
import threading
import time

from lightvla_ros.core.pacing import FixedRateThread

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
