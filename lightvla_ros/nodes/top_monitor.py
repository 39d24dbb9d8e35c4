"""An ear on /diagnostics."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeAlias

from diagnostic_msgs.msg import DiagnosticArray

from lightvla_ros.nodes import qos
from lightvla_ros.nodes.diagnostics import statuses_in
from lightvla_ros.nodes.observer import observing

# name, level, message and key -> value of one status
OnStatus: TypeAlias = Callable[[str, int, str, Mapping[str, str]], None]
Listen: TypeAlias = Callable[[float], None]


@contextmanager
def listening(on_status: OnStatus) -> Iterator[Listen]:
    """Subscribe to /diagnostics.

    Args:
        on_status: called with every status, in the thread that listens.

    Yields:
        A function that takes in at most one message and returns after so many seconds without one.
    """

    def on_message(message: DiagnosticArray) -> None:
        for status in statuses_in(message):
            on_status(*status)

    with observing("lightvla_top") as (node, executor):
        node.create_subscription(DiagnosticArray, "/diagnostics", on_message, qos.DIAGNOSTICS)
        yield lambda timeout_s: executor.spin_once(timeout_sec=timeout_s)
