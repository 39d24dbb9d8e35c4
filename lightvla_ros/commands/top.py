"""`lightvla top`: what a policy node does, how fast, and why it stands still, live in a terminal."""

from __future__ import annotations

import argparse
import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.console import Console, RenderableType
from rich.live import Live

from lightvla_ros.commands._top_view import render, waiting
from lightvla_ros.core.errors import LightVlaError
from lightvla_ros.view.policy_status import DEFAULT_NODE, Snapshot, node_of, parse_status
from lightvla_ros.view.status_trace import Trace

if TYPE_CHECKING:
    from lightvla_ros.nodes.top_monitor import Listen

HELP = "watch a policy node: state, rates, latency per stage, retained tokens, drops"

# Long enough to notice a key, short enough for a steady "for 12 s".
_REFRESH_S = 0.25
# A node speaks once a second: after this long every one that is there has been heard.
_ROUND_S = 1.2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.add_argument("--node", help=f"full name of the node (default: {DEFAULT_NODE}, or the first heard)")
    parser.add_argument("--once", action="store_true", help="print one snapshot and end")
    parser.add_argument("--json", action="store_true", help="as --once, and end with one JSON object")
    parser.add_argument(
        "--timeout-s",
        type=float,
        default=10.0,
        help="how long --once waits for the node (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    """Watch until q or Ctrl-C, or print one snapshot."""
    from lightvla_ros.nodes.top_monitor import listening

    # A job runner's polite request to stop must leave the terminal as it was, too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    heard = Heard(args.node)
    with listening(heard.add) as listen:
        if args.once or args.json:
            return _once(heard, listen, args)
        console = Console()
        try:
            (_watch if console.is_terminal else _log)(heard, listen, console)
        except KeyboardInterrupt:
            pass  # the way to end it
    return 0


class Heard:
    """Every policy node that was heard, and the chosen one among them.

    Args:
        wanted: the only node to show; None for `DEFAULT_NODE`, or any other when that is not there.
    """

    def __init__(self, wanted: str | None) -> None:
        self._wanted = None if wanted is None else "/" + wanted.lstrip("/")
        self._traces: dict[str, Trace] = {}

    def add(self, name: str, level: int, message: str, values: Mapping[str, str]) -> None:
        """Take in a diagnostic status; one that is not a policy node's is ignored."""
        node = node_of(name)
        if node is None:
            return
        snapshot, now_s = parse_status(node, level, message, values), time.monotonic()
        if node in self._traces:
            self._traces[node].add(snapshot, now_s)
        else:
            self._traces[node] = Trace(snapshot, now_s)

    @property
    def trace(self) -> Trace | None:
        """The chosen node; None before it was heard."""
        if self._wanted is not None:
            return self._traces.get(self._wanted)
        return self._traces.get(DEFAULT_NODE) or next(iter(self._traces.values()), None)

    @property
    def others(self) -> list[Snapshot]:
        """The other nodes, by name."""
        return [trace.snapshot for _, trace in sorted(self._traces.items()) if trace is not self.trace]

    def view(self, hint: str = "") -> RenderableType:
        """Draw the chosen node as it is now."""
        trace = self.trace
        if trace is None:
            text = f"for diagnostics of {self.sought}; {_remedy()}"
            return waiting(text, others=self.others, hint=hint)
        return render(trace, time.monotonic(), others=self.others, hint=hint)

    def missing(self, timeout_s: float) -> LightVlaError:
        """Make the error about a node that was not heard in `timeout_s`."""
        others = ", ".join(snapshot.node for snapshot in self.others)
        return LightVlaError(
            f"no diagnostics of {self.sought}",
            got=f"those of {others}" if others else f"nothing on /diagnostics in {timeout_s:g} s",
            expected="one status a second",
            fix=f"choose with --node {self.others[0].node}" if others else _remedy(),
        )

    @property
    def sought(self) -> str:
        """What is being looked for, in words."""
        return self._wanted or "a policy node"


def _remedy() -> str:
    domain = os.environ.get("ROS_DOMAIN_ID", "0")
    return (
        "start it with `ros2 launch lightvla_ros policy.launch.py`, or set ROS_DOMAIN_ID as it has "
        f"(here {domain}; `lightvla demo --domain-id {domain}` joins this one)"
    )


def _once(heard: Heard, listen: Listen, args: argparse.Namespace) -> int:
    deadline_s = time.monotonic() + args.timeout_s
    while heard.trace is None and time.monotonic() < deadline_s:
        listen(_REFRESH_S)
    round_end_s = time.monotonic() + _ROUND_S
    while heard.trace is not None and args.node is None and time.monotonic() < round_end_s:
        listen(_REFRESH_S)
    if heard.trace is None:
        raise heard.missing(args.timeout_s)
    Console().print(heard.view())
    if args.json:
        print(json.dumps(asdict(heard.trace.snapshot)))
    return 0


def _watch(heard: Heard, listen: Listen, console: Console) -> None:
    with _pressed_keys() as pressed, Live(console=console, screen=True, auto_refresh=False) as live:
        while "q" not in pressed():
            live.update(heard.view("q quits"), refresh=True)
            listen(_REFRESH_S)


def _log(heard: Heard, listen: Listen, console: Console) -> None:
    """Print every snapshot, for a file or a pipe."""
    shown: Snapshot | None = None
    while True:
        listen(_REFRESH_S)
        trace = heard.trace
        if trace is not None and trace.snapshot is not shown:
            shown = trace.snapshot
            console.print(heard.view(), "")


@contextmanager
def _pressed_keys() -> Iterator[Callable[[], str]]:
    """Yield a function that returns the keys pressed since it was last called, where there is a keyboard."""
    if not sys.stdin.isatty():
        yield lambda: ""
        return
    import termios
    import tty

    keyboard = sys.stdin.fileno()
    before = termios.tcgetattr(keyboard)
    tty.setcbreak(keyboard)

    def pressed() -> str:
        if not select.select([keyboard], [], [], 0)[0]:
            return ""
        return os.read(keyboard, 64).decode(errors="ignore")

    try:
        yield pressed
    finally:
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)
