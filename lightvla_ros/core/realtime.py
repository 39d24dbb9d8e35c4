"""Real-time priority of threads and processes. Imports nothing that starts threads of its own."""

from __future__ import annotations

import contextlib
import os


def become_realtime(priority: int) -> str | None:
    """Give the calling thread SCHED_FIFO.

    Args:
        priority: 1 to 99; above every thread without real-time priority whatever the number.

    Returns:
        None, or why it could not be and what to do about it.
    """
    try:
        # 0 is the calling thread.
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(priority))
    except OSError as error:
        return (
            f"no real-time priority for the publisher ({error.strerror}); commands may jitter by "
            f"milliseconds on a busy machine. Fix: allow it, e.g. '<user> - rtprio {priority}' in "
            "/etc/security/limits.conf, LimitRTPRIO= of the service, --cap-add=SYS_NICE of the container; "
            "or set realtime_priority to 0"
        )
    return None


def lift_process(priority: int) -> None:
    """Give every thread of this process SCHED_FIFO where it is permitted, and so what they start.

    A thread with real-time priority still waits for Python's lock, and whoever holds the lock may have
    been pushed aside by another program: measured, 6 to 12 ms at the 99th percentile on a busy machine,
    against 0.2 ms when the whole process is lifted. Only for processes that leave the heavy work to others.
    """
    for thread in os.listdir("/proc/self/task"):
        with contextlib.suppress(OSError):  # not permitted, or the thread has just ended
            os.sched_setscheduler(int(thread), os.SCHED_FIFO, os.sched_param(priority))


def lower_process() -> None:
    """Take real-time priority back that was inherited from the process that started this one."""
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
