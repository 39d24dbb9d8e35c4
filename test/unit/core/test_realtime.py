"""Time slices of threads: shortened for commands, never for inference."""

from __future__ import annotations

import ctypes
import os
import platform
import threading

import pytest

from lightvla_ros.core import realtime

SCHED_GETATTR = {"x86_64": 315, "aarch64": 275}


def attributes(thread: int = 0) -> realtime._Attributes:
    """What the kernel says about a thread; `runtime` is its slice, ns."""
    found = realtime._Attributes()
    size = ctypes.sizeof(found)
    number = SCHED_GETATTR[platform.machine()]
    assert ctypes.CDLL(None).syscall(number, thread, ctypes.byref(found), size, 0) == 0
    return found


def in_a_thread(function: object) -> list[int]:
    """The calls' results, each in the same new thread: no other test shall run with its slices."""
    results: list[int] = []
    thread = threading.Thread(target=lambda: results.extend(function()))  # type: ignore[operator]
    thread.start()
    thread.join()
    return results


@pytest.mark.skipif(platform.machine() not in SCHED_GETATTR, reason="the system call's number is not known")
def test_a_short_slice_is_inherited_by_threads_and_taken_back_from_inference() -> None:
    def slices() -> list[int]:
        before, nice = attributes().runtime, os.getpriority(os.PRIO_PROCESS, 0)
        realtime.shorten_slice()
        own = attributes().runtime
        started = in_a_thread(lambda: [attributes().runtime])
        realtime.lower_process()
        assert os.getpriority(os.PRIO_PROCESS, 0) == nice
        return [before, own, *started, attributes().runtime]

    before, own, started, after = in_a_thread(slices)
    if own == before:
        pytest.skip("the kernel has no slices of one's own (Linux 6.12)")
    assert own == started == 100_000
    assert after == before


def test_a_machine_without_the_system_call_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    realtime.shorten_slice()
