"""Rates and percentiles over the recent past, by times given as arguments, and a clock for stages."""

from __future__ import annotations

import time
from collections import deque

import numpy as np


class RateMeter:
    """Events per second over the last few seconds; safe to mark and read from two threads."""

    def __init__(self, *, window: int = 64, silent_after_ns: int = 2_000_000_000) -> None:
        self._marks: deque[int] = deque(maxlen=window)
        self._silent_after_ns = silent_after_ns

    def mark(self, now_ns: int) -> None:
        """Note one event."""
        self._marks.append(now_ns)

    def rate_hz(self, now_ns: int) -> float:
        """Mean rate of the marks kept; 0 with fewer than two or after a silence."""
        marks = list(self._marks)
        if len(marks) < 2 or now_ns - marks[-1] > self._silent_after_ns or marks[-1] <= marks[0]:
            return 0.0
        return (len(marks) - 1) * 1e9 / (marks[-1] - marks[0])


class Window:
    """The newest samples of one quantity; safe to add and read from two threads."""

    def __init__(self, size: int = 256) -> None:
        self._samples: deque[float] = deque(maxlen=size)

    def add(self, value: float) -> None:
        """Note one sample."""
        self._samples.append(value)

    def percentiles(self, *ranks: float) -> tuple[float, ...]:
        """Percentiles of the samples kept, one per rank (0..100); empty when there are no samples."""
        samples = list(self._samples)
        return tuple(float(value) for value in np.percentile(samples, ranks)) if samples else ()

    @property
    def last(self) -> float | None:
        """The newest sample, None when there is none."""
        return self._samples[-1] if self._samples else None


class Latencies:
    """The newest durations of each stage; safe to note and read from two threads."""

    def __init__(self) -> None:
        self._windows: dict[str, Window] = {}

    def note(self, stage: str, nanoseconds: float) -> None:
        """Note how long a stage took."""
        self._windows.setdefault(stage, Window()).add(nanoseconds / 1e6)

    def percentiles_ms(self, *ranks: float) -> dict[str, tuple[float, ...]]:
        """Percentiles of each stage that was noted, one per rank (0..100), ms."""
        return {stage: window.percentiles(*ranks) for stage, window in list(self._windows.items())}


class StageClock:
    """Collect wall time between marks, in milliseconds."""

    def __init__(self) -> None:
        self.timings_ms: dict[str, float] = {}
        self._last = time.perf_counter()

    def mark(self, stage: str) -> None:
        """Note the time since the last mark, or since the clock was made, as that of `stage`."""
        now = time.perf_counter()
        self.timings_ms[stage] = (now - self._last) * 1e3
        self._last = now
