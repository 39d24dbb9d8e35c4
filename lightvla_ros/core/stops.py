"""The reasons not to move that are in force, and what a person is told of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from lightvla_ros.core.watchdog import StopReason


class Stops:
    """Reasons that last until they are lifted, and the one that counts now. Not thread safe: the owner locks.

    Attributes:
        reason: why the robot did not move at the last look; None when it did.
        edges: each change of the reason, oldest first, for the log; whoever logs takes them out.
    """

    def __init__(self) -> None:
        self._lasting: dict[str, StopReason] = {}
        self.reason: StopReason | None = None
        self.edges: deque[StopReason | None] = deque(maxlen=64)

    def add(self, reason: StopReason) -> None:
        """Let a reason hold until it is lifted; one of the same code is replaced."""
        self._lasting[reason.code] = reason

    def lift(self, codes: Iterable[str]) -> None:
        """Lift reasons; those that do not hold are ignored."""
        for code in codes:
            self._lasting.pop(code, None)

    def first(self, *, other_than: frozenset[str] = frozenset()) -> StopReason | None:
        """Return the oldest reason in force, leaving some codes aside."""
        return next((reason for code, reason in self._lasting.items() if code not in other_than), None)

    def note(self, reason: StopReason | None) -> None:
        """Make a reason the one that counts; another code than before is an edge."""
        before = self.reason.code if self.reason else None
        if (reason.code if reason else None) != before:
            self.edges.append(reason)
        self.reason = reason
