"""What `lightvla doctor` says about the computer: cores, memory, GPU, frequency, priority, clock."""

from __future__ import annotations

import ctypes
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from lightvla_ros.backends.availability import Availability, available_gpu
from lightvla_ros.commands._finding import Finding, Level
from lightvla_ros.core.config import NodeConfig
from lightvla_ros.core.realtime import become_realtime

_CPUS = Path("/sys/devices/system/cpu")
_MIN_FREE_MEMORY = 1e9
# As systemd judges: the kernel lets the error grow until a time service tells it otherwise.
_MAX_CLOCK_ERROR_US = 16_000_000


def machine_findings() -> Iterator[Finding]:
    """Look at this machine."""
    yield from capacity(len(os.sched_getaffinity(0)), available_memory())
    yield gpu_finding(available_gpu())
    yield governor_finding(governors())
    priority = NodeConfig().realtime_priority
    yield realtime_finding(priority, permitted=may_become_realtime(priority))
    yield synchronisation_finding(clock_error_us())


def capacity(num_cores: int, free_bytes: int) -> Iterator[Finding]:
    """Judge cores and memory."""
    cores = f"{num_cores} CPU core{'' if num_cores == 1 else 's'} for this process"
    memory = f"{free_bytes / 1e9:.1f} GB of memory free"
    if num_cores > 1 and free_bytes >= _MIN_FREE_MEMORY:
        yield _finding("ok", f"{cores}, {memory}")
        return
    if num_cores == 1:
        text = f"{cores}: inference and the driver share it with the node"
        yield _finding("warning", text, "give it two or more, e.g. --cpus=2 of the container")
    else:
        yield _finding("ok", cores)
    low = free_bytes < _MIN_FREE_MEMORY
    yield _finding("warning" if low else "ok", memory, "close other programs" if low else "")


def gpu_finding(gpu: Availability) -> Finding:
    """Judge the GPU."""
    if gpu.usable:
        return _finding("ok", gpu.found)
    if gpu.found:
        return _finding("warning", f"{gpu.found} without {gpu.lacks}", gpu.fix)
    return _finding("note", "no NVIDIA GPU: policies run on the CPU")


def governor_finding(governors: Sequence[str]) -> Finding:
    """Judge how the kernel chooses the cores' frequency.

    Args:
        governors: one per core; none where the kernel does not choose, as in virtual machines.
    """
    if not governors:
        return _finding("note", "the CPU's frequency is not in this system's hands, as in virtual machines")
    names = ", ".join(f"{name} on {count}" for name, count in Counter(governors).most_common())
    text = f"CPU frequency governor {governors[0] if len(set(governors)) == 1 else names}"
    if "powersave" in governors:
        text += ": cores wake slowly, so latencies are longer and vary"
        return _finding("warning", text, "sudo cpupower frequency-set -g performance")
    return _finding("ok", text)


def realtime_finding(priority: int, *, permitted: bool) -> Finding:
    """Judge whether the command thread gets the priority it wants."""
    if permitted:
        return _finding("ok", f"real-time priority {priority} for the command thread is permitted")
    return _finding(
        "note",
        "no real-time priority for the command thread: on a busy machine commands come milliseconds late",
        f"'<user> - rtprio {priority}' in /etc/security/limits.conf, LimitRTPRIO={priority} of the service, "
        "or --cap-add=SYS_NICE of the container",
    )


def synchronisation_finding(error_us: int | None) -> Finding:
    """Judge whether a time service keeps the clock.

    Args:
        error_us: the kernel's bound of the clock's error; None where it does not tell.
    """
    if error_us is None:
        return _finding("note", "whether the system's clock is synchronised cannot be told here")
    if error_us < _MAX_CLOCK_ERROR_US:
        return _finding("ok", f"the system's clock is synchronised, to {error_us / 1e3:.1f} ms at worst")
    return _finding(
        "note",
        "no time service keeps the system's clock; cameras or a robot on another computer drift away from it",
        "sudo apt install chrony, on every computer; with one alone there is nothing to do",
    )


def governors(cpus: Path = _CPUS) -> list[str]:
    """Read the frequency governor of each core, in the order of their names."""
    files = sorted(cpus.glob("cpu[0-9]*/cpufreq/scaling_governor"))
    return [file.read_text(encoding="ascii").strip() for file in files]


def may_become_realtime(priority: int) -> bool:
    """Try it, in a thread of its own."""
    with ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(become_realtime, priority).result() is None


class _Time(ctypes.Structure):
    """The start of the C library's `struct timex`; the rest is room for what is not read."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("frequency", ctypes.c_long),
        ("max_error", ctypes.c_long),
        ("rest", ctypes.c_byte * 256),
    )


def clock_error_us() -> int | None:
    """Ask the kernel how wrong the clock may be; None where it does not tell."""
    time = _Time()  # no modes: nothing is set
    try:
        result = ctypes.CDLL(None).adjtimex(ctypes.byref(time))
    except AttributeError:
        return None
    return int(time.max_error) if result >= 0 else None


def available_memory() -> int:
    """Return the bytes of memory a new process can have."""
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        name, _, amount = line.partition(":")
        if name == "MemAvailable":
            return int(amount.split()[0]) * 1024
    return 0


def _finding(level: Level, text: str, fix: str = "") -> Finding:
    return Finding(section="machine", level=level, text=text, fix=fix)
