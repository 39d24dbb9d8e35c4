"""Refuse what does not fit into memory before it is read, instead of being killed half-way."""

from __future__ import annotations

import math
from pathlib import Path

from lightvla_ros.core.errors import ConfigError

_MEMINFO = Path("/proc/meminfo")


def require_memory(needed: int, what: str) -> None:
    """Check that there are `needed` bytes for something.

    Raises:
        ConfigError: there are not.
    """
    available = available_bytes()
    if needed > available:
        raise ConfigError(
            what,
            got=f"{needed / 1e9:.1f} GB",
            expected=f"at most the {available / 1e9:.1f} GB of memory that are free",
            fix="use fewer episodes, smaller images or a machine with more memory",
        )


def available_bytes() -> float:
    """Return the memory that can be had without swapping, bytes; infinite where the system does not say."""
    try:
        lines = dict(line.split(":", 1) for line in _MEMINFO.read_text().splitlines())
        return int(lines["MemAvailable"].split()[0]) * 1024.0
    except (OSError, KeyError, ValueError):
        return math.inf
