"""A thread that calls one function at a fixed rate, by absolute deadlines of the monotonic clock."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from lightvla_ros.core.metrics import Window


class FixedRateThread:
    """Call `tick` at every multiple of a period.

    Deadlines do not drift: each is the last one plus the period. A tick that comes more than a period
    late is counted in `missed` and skipped, never made up for in a burst.

    Args:
        name: name of the thread.
        rate_hz: ticks per second.
        tick: called without arguments; should take far less than a period.
        on_error: takes what `tick` raised; the thread goes on.
    """

    def __init__(
        self,
        *,
        name: str,
        rate_hz: float,
        tick: Callable[[], None],
        on_error: Callable[[Exception], None],
    ) -> None:
        self._period_ns = round(1e9 / rate_hz)
        self._tick = tick
        self._on_error = on_error
        self._running = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.missed = 0
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
        deadline_ns = time.monotonic_ns()
        while self._running.is_set():
            deadline_ns += self._period_ns
            late_ns = self._wait_until(deadline_ns)
            if late_ns >= self._period_ns:
                skipped = late_ns // self._period_ns
                self.missed += skipped
                deadline_ns += skipped * self._period_ns
            self.lateness_ms.add(late_ns / 1e6)
            try:
                self._tick()
            except Exception as error:  # noqa: BLE001  # the command path outlives any single failure
                self._on_error(error)

    @staticmethod
    def _wait_until(deadline_ns: int) -> int:
        delay_ns = deadline_ns - time.monotonic_ns()
        if delay_ns > 0:
            time.sleep(delay_ns / 1e9)
        return time.monotonic_ns() - deadline_ns
