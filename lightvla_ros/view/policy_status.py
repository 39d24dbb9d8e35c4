"""What one diagnostic status of a policy node says, sorted into groups; neither ROS nor drawing here."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

STATUS_SUFFIX = ": policy"
# What the node is called where nobody says otherwise.
DEFAULT_NODE = "/lightvla_policy"
LEVELS = ("ok", "warning", "error", "stale")
# Nothing is wrong, the next chunk is not there yet.
_BETWEEN_CHUNKS = ("no_action", "awaiting_chunk")
_TEXTS = ("stop_reason", "stop_message", "instruction", "epoch", "engine", "backend", "active", "enabled")


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A policy node at one moment.

    Attributes:
        node: full name, such as "/lightvla_policy".
        level: one of `LEVELS`.
        state: "acting", "holding" (commands stand still until the next chunk) or "stopped".
        reason: code of the stop; "" while acting and for a node that is not configured.
        message: the stop in words, "" while acting.
        rates_hz: name without `_rate_hz` -> events per second.
        latencies_ms: stage -> percentile ("p50", "p95", "p99") -> milliseconds.
        retained: "last", "min", "median", "max" -> visual tokens.
        counters: name -> count since the node was configured.
        image_topics: camera -> full name of its topic.
        other: what this version does not know.
    """

    node: str
    level: str
    state: str
    reason: str = ""
    message: str = ""
    instruction: str = ""
    epoch: str = ""
    engine: str = ""
    backend: str = ""
    active: bool = False
    enabled: bool = False
    num_visual_tokens: int | None = None
    rates_hz: dict[str, float] = field(default_factory=dict)
    latencies_ms: dict[str, dict[str, float]] = field(default_factory=dict)
    retained: dict[str, float] = field(default_factory=dict)
    counters: dict[str, int] = field(default_factory=dict)
    image_topics: dict[str, str] = field(default_factory=dict)
    other: dict[str, str] = field(default_factory=dict)


def node_of(status_name: str) -> str | None:
    """Return the full name of the policy node that a status is about, None for another program's."""
    if not status_name.endswith(STATUS_SUFFIX):
        return None
    return "/" + status_name.removesuffix(STATUS_SUFFIX).lstrip("/")


def parse_status(node: str, level: int, message: str, values: Mapping[str, str]) -> Snapshot:
    """Sort a status into a snapshot; whatever has another form than expected ends up in `other`.

    Args:
        node: full name of the node.
        level: as in diagnostic_msgs/DiagnosticStatus, 0 to 3.
        message: the status's one line.
        values: its key -> value.
    """
    printable = {key: _printable(value) for key, value in values.items()}
    texts = {key: printable.pop(key, "") for key in _TEXTS}
    groups = _Groups()
    for key, value in printable.items():
        groups.add(key, value)
    reason = texts["stop_reason"]
    return Snapshot(
        node=node,
        level=LEVELS[level] if 0 <= level < len(LEVELS) else "error",
        state=_state(reason, groups.rates_hz.get("command", 0.0)),
        # A node that is not configured gives its reason in words.
        reason="" if " " in reason else reason,
        message=(texts["stop_message"] or _printable(message)) if reason else "",
        instruction=texts["instruction"],
        epoch=texts["epoch"],
        engine=texts["engine"],
        backend=texts["backend"],
        active=texts["active"] == "True",
        enabled=texts["enabled"] == "True",
        num_visual_tokens=groups.counters.pop("num_visual_tokens", None),
        rates_hz=groups.rates_hz,
        latencies_ms=groups.latencies_ms,
        retained=groups.retained,
        counters=groups.counters,
        image_topics=groups.image_topics,
        other=groups.other,
    )


class _Groups:
    """The numbers of a status by the form of their keys."""

    def __init__(self) -> None:
        self.rates_hz: dict[str, float] = {}
        self.latencies_ms: dict[str, dict[str, float]] = {}
        self.retained: dict[str, float] = {}
        self.counters: dict[str, int] = {}
        self.image_topics: dict[str, str] = {}
        self.other: dict[str, str] = {}

    def add(self, key: str, value: str) -> None:
        number = _number(value)
        if key.startswith("image_topic_"):
            self.image_topics[key.removeprefix("image_topic_")] = value
        elif number is None:
            self.other[key] = value
        elif match := re.fullmatch(r"(.+)_(p\d+)_ms", key):
            self.latencies_ms.setdefault(match[1], {})[match[2]] = number
        elif key.endswith("_rate_hz"):
            self.rates_hz[key.removesuffix("_rate_hz")] = number
        elif key.startswith("retained_"):
            self.retained[key.removeprefix("retained_")] = number
        elif value.isdecimal():
            self.counters[key] = int(value)
        else:
            self.other[key] = value


def _state(reason: str, command_rate_hz: float) -> str:
    if not reason:
        return "acting"
    return "holding" if reason in _BETWEEN_CHUNKS and command_rate_hz > 0 else "stopped"


def _number(value: str) -> float | None:
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _printable(text: str) -> str:
    """Return text that cannot move the cursor, whoever wrote the instruction."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
