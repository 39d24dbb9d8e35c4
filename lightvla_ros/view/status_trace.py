"""The recent past of a policy node: since when, how it changed. Time is an argument."""

from __future__ import annotations

from collections import deque

from lightvla_ros.view.policy_status import Snapshot

# The node speaks once a second.
SILENT_AFTER_S = 3.0
RECENT_S = 10.0
_KEPT = 64
# That a state older than the trace has lasted for "at least" less than this says nothing.
_WORTH_TELLING_S = 2.0


class Trace:
    """The snapshots of one node.

    Args:
        snapshot: the first one.
        now_s: when it came, seconds of any clock that only goes forward.

    Attributes:
        snapshot: the newest one.
        saw_change: whether the present state's beginning was seen; otherwise it is older than the trace.
    """

    def __init__(self, snapshot: Snapshot, now_s: float) -> None:
        self.snapshot = snapshot
        self.saw_change = False
        self._began_s = now_s
        self._past: deque[tuple[float, Snapshot]] = deque([(now_s, snapshot)], maxlen=_KEPT)

    def add(self, snapshot: Snapshot, now_s: float) -> None:
        """Take in the next snapshot."""
        before, self.snapshot = self.snapshot, snapshot
        if (before.state, before.reason) != (snapshot.state, snapshot.reason):
            self._began_s, self.saw_change = now_s, True
        self._past.append((now_s, snapshot))

    def state_s(self, now_s: float) -> float:
        """Seconds in the present state, as far as seen."""
        return now_s - self._began_s

    def lasted(self, now_s: float) -> str:
        """Tell how long the present state has lasted, "" where nothing of worth is known."""
        state_s = self.state_s(now_s)
        if self.saw_change:
            return duration(state_s)
        return f"at least {duration(state_s)}" if state_s > _WORTH_TELLING_S else ""

    def silence_s(self, now_s: float) -> float | None:
        """Seconds since the node spoke when that is longer than it should be, else None."""
        silence_s = now_s - self._past[-1][0]
        return silence_s if silence_s > SILENT_AFTER_S else None

    def rise(self, counter: str) -> int:
        """By how much a counter rose in the last `RECENT_S` before the newest snapshot."""
        newest_s, newest = self._past[-1]
        oldest = next(snapshot for time_s, snapshot in self._past if newest_s - time_s <= RECENT_S)
        # A counter that begins to exist was zero; one that fell belongs to a restarted node.
        return max(0, newest.counters.get(counter, 0) - oldest.counters.get(counter, 0))

    def retained(self) -> list[float]:
        """Retained tokens of the past snapshots, oldest first."""
        return [snapshot.retained["last"] for _, snapshot in self._past if "last" in snapshot.retained]


def duration(seconds: float) -> str:
    """Tell a duration in two units at most."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"
