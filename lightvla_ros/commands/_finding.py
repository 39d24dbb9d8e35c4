"""What `lightvla doctor` says about one thing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

# ok: works. note: a fact, nothing to do unless wanted. warning: something does not work. error: nothing does.
Level: TypeAlias = Literal["ok", "note", "warning", "error"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        section: what it belongs to: package, ROS, machine, backends, bundle, graph, cameras or robot.
        level: how bad it is.
        text: what is so.
        fix: what to do about it, a command where there is one; empty where nothing is to be done.
    """

    section: str
    level: Level
    text: str
    fix: str = ""
