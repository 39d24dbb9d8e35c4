"""How often a process that keeps ending may be started again. Time is always an argument."""

from __future__ import annotations

from collections import deque


class RestartBudget:
    """Exponential back-off with a limit.

    Args:
        max_restarts: restarts within the window before giving up.
        window_s: how long a restart counts.
        first_delay_s: wait before the first restart; each further one within the window doubles it.
    """

    def __init__(self, *, max_restarts: int = 5, window_s: float = 60.0, first_delay_s: float = 0.5) -> None:
        self.max_restarts = max_restarts
        self._window_s = window_s
        self._first_delay_s = first_delay_s
        self._restarts: deque[float] = deque()

    def next_delay_s(self, now_s: float) -> float | None:
        """Count a restart and return how long to wait before it; None when the limit is reached."""
        while self._restarts and now_s - self._restarts[0] > self._window_s:
            self._restarts.popleft()
        if len(self._restarts) >= self.max_restarts:
            return None
        self._restarts.append(now_s)
        return self._first_delay_s * 2.0 ** (len(self._restarts) - 1)
