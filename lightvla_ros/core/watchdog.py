"""Why motion must stop: inputs that are missing, old or refused, and a clock that jumps or stands still."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class StopReason:
    """One reason not to move.

    Attributes:
        code: short and stable, `kind` or `kind:input`; compared to log on edges only.
        message: what, got, expected and fix for a person.
    """

    code: str
    message: str


@dataclass(slots=True)
class _Input:
    stamp_ns: int | None = None
    refusal: str | None = None


class InputMonitor:
    """When each input last gave something usable. Not thread safe: the owner locks.

    Args:
        names: the inputs that motion depends on.
        stale_after_ns: age at which an input stops the motion.
    """

    def __init__(self, names: Iterable[str], *, stale_after_ns: int) -> None:
        self.stale_after_ns = stale_after_ns
        self._started_ns = 0
        self._inputs = {name: _Input() for name in names}

    def restart(self, now_ns: int) -> None:
        """Forget everything and wait for every input anew."""
        self._started_ns = now_ns
        self._inputs = {name: _Input() for name in self._inputs}

    def accept(self, name: str, stamp_ns: int) -> None:
        """Note a usable message taken at `stamp_ns`."""
        self._inputs[name] = _Input(stamp_ns=stamp_ns)

    def refuse(self, name: str, message: str) -> None:
        """Note a message that cannot be used; the input counts as lost until a usable one comes."""
        self._inputs[name].refusal = message

    def problem(self, now_ns: int) -> StopReason | None:
        """Return the first input that forbids motion, None when all are fresh."""
        for name, state in self._inputs.items():
            if state.refusal is not None:
                return StopReason(f"refused:{name}", state.refusal)
            if state.stamp_ns is None:
                waited_ns = now_ns - self._started_ns
                kind = "missing" if waited_ns > self.stale_after_ns else "waiting"
                return StopReason(f"{kind}:{name}", f"{name}: nothing received for {waited_ns / 1e9:.2f} s")
            age_ns = now_ns - state.stamp_ns
            if age_ns > self.stale_after_ns:
                limit = f"expected at most stale_after_s = {self.stale_after_ns / 1e9:g} s"
                return StopReason(f"stale:{name}", f"{name}: the newest is {age_ns / 1e9:.2f} s old; {limit}")
        return None


class FrozenImages:
    """Cameras whose images stay the same under new stamps. Not thread safe: the owner locks.

    Args:
        frozen_after_ns: how long a camera may repeat an image; 0 for ever.
    """

    def __init__(self, frozen_after_ns: int) -> None:
        self.frozen_after_ns = frozen_after_ns
        # camera -> the newest image and the stamp under which it came first
        self._seen: dict[str, tuple[NDArray[np.uint8], int]] = {}

    def add(self, camera: str, image: NDArray[np.uint8], stamp_ns: int) -> StopReason | None:
        """Look at an image; returns why it forbids motion, or None."""
        if not self.frozen_after_ns:
            return None
        before = self._seen.get(camera)
        if before is None or not np.array_equal(before[0], image):
            self._seen[camera] = image, stamp_ns
            return None
        same_ns = stamp_ns - before[1]
        if same_ns <= self.frozen_after_ns:
            return None
        return StopReason(
            f"frozen:{camera}",
            f"{camera}: every pixel the same for {same_ns / 1e9:.2f} s; expected a new picture within "
            f"camera.frozen_after_s = {self.frozen_after_ns / 1e9:g} s. Fix: restart the camera's driver",
        )

    def clear(self) -> None:
        """Forget every image."""
        self._seen.clear()


class ClockState(enum.Enum):
    """How ROS time behaved since the last look."""

    STEADY = "steady"
    JUMPED = "jumped"
    STOPPED = "stopped"


class ClockGuard:
    """Compare ROS time with monotonic time. Not thread safe: one caller.

    Args:
        jump_ns: how far ROS time may run ahead of monotonic time between two looks.
        stopped_ns: monotonic time after which a clock that shows the same time has stopped.
    """

    def __init__(self, *, jump_ns: int, stopped_ns: int) -> None:
        self.jump_ns = jump_ns
        self.stopped_ns = stopped_ns
        self._now_ns: int | None = None
        self._looked_ns = 0
        self._moved_ns = 0

    def update(self, now_ns: int, monotonic_ns: int) -> ClockState:
        """Look at both clocks; a first look is always steady."""
        before_ns, looked_ns = self._now_ns, self._looked_ns
        self._now_ns, self._looked_ns = now_ns, monotonic_ns
        if before_ns is None:
            self._moved_ns = monotonic_ns
            return ClockState.STEADY
        advance_ns = now_ns - before_ns
        if advance_ns == 0:
            stopped = monotonic_ns - self._moved_ns > self.stopped_ns
            return ClockState.STOPPED if stopped else ClockState.STEADY
        self._moved_ns = monotonic_ns
        jumped = advance_ns < 0 or advance_ns - (monotonic_ns - looked_ns) > self.jump_ns
        return ClockState.JUMPED if jumped else ClockState.STEADY
