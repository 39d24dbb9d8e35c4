"""A thread that calls one function at a fixed rate, by absolute deadlines of the monotonic clock."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from lightvla_ros.core.metrics import Window
from lightvla_ros.core.realtime import become_realtime

# Share of the period within which a tick is to be over, counted from its deadline.
BUDGET = 0.1


class Deadlines:
    """Multiples of a period that do not drift; late ones are skipped, never made up for in a burst.

    Args:
        period_ns: time between two deadlines.
        start_ns: the first deadline is one period later.
    """

    def __init__(self, period_ns: int, start_ns: int) -> None:
        self.period_ns = period_ns
        self.next_ns = start_ns + period_ns

    def reached(self, now_ns: int) -> tuple[int, int]:
        """Go on to the deadline after `now_ns`.

        Returns:
            how late the deadline just reached is, ns, and how many before it were skipped.
        """
        skipped = max(0, now_ns - self.next_ns) // self.period_ns
        due_ns = self.next_ns + skipped * self.period_ns
        self.next_ns = due_ns + self.period_ns
        return now_ns - due_ns, skipped


class FixedRateThread:
    """Call `tick` at every multiple of a period.

    Args:
        name: name of the thread.
        rate_hz: ticks per second.
        tick: called without arguments; should take far less than a period.
        on_error: takes what `tick` raised; the thread goes on.
        priority: SCHED_FIFO priority, 0 for none.
        on_unprivileged: takes, once, why the priority could not be had.

    Attributes:
        ticks: how often `tick` was called.
        missed: deadlines that were over by more than a period, and so skipped.
        over_budget: ticks that were over later than a tenth of the period after their deadline.
        lateness_ms: how long after its deadline each of the newest ticks began.
    """

    def __init__(
        self,
        *,
        name: str,
        rate_hz: float,
        tick: Callable[[], None],
        on_error: Callable[[Exception], None],
        priority: int = 0,
        on_unprivileged: Callable[[str], object] = lambda _: None,
    ) -> None:
        self._period_ns = round(1e9 / rate_hz)
        self._tick = tick
        self._on_error = on_error
        self._priority = priority
        self._on_unprivileged = on_unprivileged
        self._running = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.ticks = 0
        self.missed = 0
        self.over_budget = 0
        self.lateness_ms = Window()

    def start(self) -> None:
        """Start ticking; a thread starts once."""
        self._running.set()
        self._thread.start()

    def stop(self) -> None:
        """Stop and wait for the tick in progress."""
        self._running.clear()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        if self._priority and (refusal := become_realtime(self._priority)):
            self._on_unprivileged(refusal)
        deadlines = Deadlines(self._period_ns, time.monotonic_ns())
        while self._running.is_set():
            now_ns = _sleep_until(deadlines.next_ns)
            late_ns, skipped = deadlines.reached(now_ns)
            due_ns = now_ns - late_ns
            self.missed += skipped
            self.ticks += 1
            self.lateness_ms.add(late_ns / 1e6)
            try:
                self._tick()
            except Exception as error:  # noqa: BLE001  # the command path outlives any single failure
                self._on_error(error)
            self.over_budget += time.monotonic_ns() - due_ns > BUDGET * self._period_ns


def _sleep_until(deadline_ns: int) -> int:
    """Sleep until a time of the monotonic clock; returns that clock after it."""
    delay_ns = deadline_ns - time.monotonic_ns()
    if delay_ns > 0:
        time.sleep(delay_ns / 1e9)
    return time.monotonic_ns()
