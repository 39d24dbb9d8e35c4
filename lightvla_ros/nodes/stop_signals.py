"""SIGINT and SIGTERM as a wish to stop, however often they come."""

from __future__ import annotations

import signal
import threading

_NUMBERS = (signal.SIGINT, signal.SIGTERM)
# One for the process, as its signals are: what comes during the imports is still known after them.
_STOPPING = threading.Event()


def stop_on_signals() -> threading.Event:
    """Return the event that signals set from now on, in place of ending the process."""
    for number in _NUMBERS:
        signal.signal(number, lambda *_: _STOPPING.set())
    return _STOPPING


def ignore_signals() -> None:
    """Ignore signals for the rest of the process, which is ending.

    Ctrl-C comes twice where `ros2 launch` hands on what the terminal sent to all. Python gives up handlers
    before the process is gone, and the second one would kill it: exit code -2 for a clean end.
    """
    for number in _NUMBERS:
        signal.signal(number, signal.SIG_IGN)
