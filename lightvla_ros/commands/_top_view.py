"""How `lightvla top` looks: pure functions from the trace of a node to rich's renderables."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.measure import Measurement
from rich.styled import Styled
from rich.table import Table
from rich.text import Text

from lightvla_ros.view.policy_status import Snapshot
from lightvla_ros.view.status_trace import RECENT_S, Trace, duration

# In the order of the path. True: the time the stage takes; False: the time since the camera's stamp.
STAGES = {
    "received": False,
    "paired": False,
    "preprocess": True,
    "vision": True,
    "pruner": True,
    "decoder": True,
    "post": True,
    "transport": True,
    "scheduled": False,
    "published": False,
}
# percentile -> what the bars are drawn with up to it
PERCENTILES = {"p50": "█", "p95": "▒", "p99": "░"}
RATES = {"inference": "chunks", "action": "actions", "command": "commands", "chunk": "chunk topic"}
_TICKS = ("ticks", "ticks_missed", "ticks_over_budget", "move", "hold", "silent", "limited")
_LOSSES = {
    "observations_replaced": "observations replaced",
    "chunks_dropped": "chunks dropped",
    "pictures_dropped": "pictures dropped",
}
_FAULTS = {
    "worker_restarts": "worker restarts",
    "inferences_failed": "inferences failed",
    "clock_jumps": "clock jumps",
}
_KNOWN = {*_TICKS, *_LOSSES, *_FAULTS, "chunks"}
_STYLES = {"ok": "cyan", "warning": "yellow", "error": "red", "stale": "red"}
_LABEL_WIDTH = 11
_SPARK_WIDTH = 16


def render(trace: Trace, now_s: float, *, others: Sequence[Snapshot] = (), hint: str = "") -> RenderableType:
    """Draw a node, at any width.

    Args:
        trace: its past.
        now_s: time by the trace's clock.
        others: further policy nodes that were heard.
        hint: said below everything.
    """
    snapshot = trace.snapshot
    parts: list[RenderableType] = _unknown(snapshot)
    # A node that is not configured has nothing to measure.
    if snapshot.engine:
        parts = [_identity(snapshot), _facts(trace), _latencies(snapshot.latencies_ms), *parts]
    body = Group(*parts)
    return Group(
        _headline(trace, now_s),
        Text(snapshot.message),
        *_others(others),
        Styled(body, "dim") if trace.silence_s(now_s) is not None else body,
        Text(f"(+n) in the last {RECENT_S:g} s   {hint}".rstrip(), "dim"),
    )


def waiting(text: str, *, others: Sequence[Snapshot] = (), hint: str = "") -> RenderableType:
    """Draw the wait for a node that was not heard yet."""
    return Group(Text(" WAITING ", "bold reverse"), Text(text), *_others(others), Text(hint, "dim"))


def sparkline(values: Sequence[float], width: int) -> str:
    """Draw the newest `width` values between their own least and greatest."""
    shown = values[-width:]
    if not shown:
        return ""
    low, high = min(shown), max(shown)
    levels = "▁▂▃▄▅▆▇█"
    scale = (len(levels) - 1) / (high - low) if high > low else 0.0
    return "".join(levels[round((value - low) * scale)] for value in shown)


def bar(stage: Mapping[str, float], longest: float, width: int) -> str:
    """Draw percentiles, ms, as one bar of which `longest`, ms, would fill `width` cells."""
    drawn = ""
    for name, mark in PERCENTILES.items():
        end = math.ceil(stage.get(name, 0.0) / longest * width) if longest > 0 else 0
        drawn += mark * (end - len(drawn))
    return drawn


def _headline(trace: Trace, now_s: float) -> RenderableType:
    snapshot, silence_s = trace.snapshot, trace.silence_s(now_s)
    if silence_s is not None:
        left = Text.assemble((" SILENT ", "bold white on red"), f" nothing heard for {duration(silence_s)};")
        left.append(f" last: {snapshot.state}")
    else:
        left = Text(f" {snapshot.state.upper()} ", f"bold black on {_colour(snapshot)}")
    if snapshot.reason:
        left.append(f" {snapshot.reason}", "bold")
    lasted = trace.lasted(now_s)
    if silence_s is None and lasted:
        left.append(f" for {lasted}", "not bold dim")
    line = Table.grid(expand=True, padding=(0, 1))
    line.add_column()
    line.add_column(justify="right", ratio=1, no_wrap=True)
    line.add_row(left, Text(snapshot.node, "bold"))
    return line


def _colour(snapshot: Snapshot) -> str:
    return "green" if snapshot.state == "acting" else _STYLES[snapshot.level]


def _identity(snapshot: Snapshot) -> RenderableType:
    instruction = Text(snapshot.instruction or "-", "bold")
    instruction.append(f"  epoch {snapshot.epoch or '-'}", "not bold dim")
    engine = Text(f"{snapshot.engine or '-'} on {snapshot.backend or '-'}")
    return _labelled({"instruction": instruction, "engine": engine})


def _facts(trace: Trace) -> RenderableType:
    rows = {
        "rates, Hz": _rates(trace.snapshot.rates_hz),
        "retained": _retained(trace),
        "commands": _outcomes(trace),
        "ticks": _ticks(trace),
        "frames": _frames(trace),
        "dropped": _counts(trace, _LOSSES),
        "faults": _counts(trace, _FAULTS),
    }
    return _labelled(rows)


def _labelled(rows: Mapping[str, Text]) -> Table:
    table = Table.grid(padding=(0, 1))
    table.add_column(width=_LABEL_WIDTH, style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for label, text in rows.items():
        table.add_row(label, text)
    return table


def _rates(rates_hz: Mapping[str, float]) -> Text:
    names = [*RATES, *(name for name in rates_hz if name not in RATES)]
    return _row(*(_figure(RATES.get(name, name), rates_hz.get(name), ".1f") for name in names))


def _retained(trace: Trace) -> Text:
    snapshot = trace.snapshot
    retained, total = snapshot.retained, snapshot.num_visual_tokens
    return _row(
        _figure("last", retained.get("last"), ".0f").append(f" of {'-' if total is None else total}"),
        *(_figure(name, retained.get(name), ".4g") for name in ("min", "median", "max")),
        Text(sparkline(trace.retained(), _SPARK_WIDTH), "cyan"),
    )


def _outcomes(trace: Trace) -> Text:
    counters = trace.snapshot.counters
    outcomes = {name: counters.get(name, 0) for name in ("move", "hold", "silent")}
    total = sum(outcomes.values())
    shares = (_figure(name, _percent(count, total), ".1f", " %") for name, count in outcomes.items())
    return _row(*shares, _count(trace, "limited", ["limited"]))


def _ticks(trace: Trace) -> Text:
    counters = trace.snapshot.counters
    share = _percent(counters.get("ticks_over_budget", 0), counters.get("ticks", 0))
    over = _figure("over budget", share, ".1f", " %").append_text(_rise(trace, ["ticks_over_budget"]))
    return _row(_figure("all", counters.get("ticks"), "d"), over, _count(trace, "missed", ["ticks_missed"]))


def _frames(trace: Trace) -> Text:
    counters = trace.snapshot.counters
    lost = ("frames_stale", "frames_unpaired")
    cameras = [name for name in counters if name.startswith("frames_") and name not in lost]
    refused = [name for name in counters if name.startswith("refused_")]
    return _row(
        *(_figure(name.removeprefix("frames_"), counters[name], "d") for name in cameras),
        *(_count(trace, name.removeprefix("frames_"), [name]) for name in lost),
        _count(trace, "refused", refused),
    )


def _counts(trace: Trace, names: Mapping[str, str]) -> Text:
    return _row(*(_count(trace, words, [name]) for name, words in names.items()))


def _count(trace: Trace, words: str, names: Sequence[str]) -> Text:
    number = sum(trace.snapshot.counters.get(name, 0) for name in names)
    return _figure(words, number, "d").append_text(_rise(trace, names))


def _rise(trace: Trace, names: Sequence[str]) -> Text:
    rise = sum(trace.rise(name) for name in names)
    return Text(f" (+{rise})" if rise else "", "bold yellow")


def _latencies(latencies_ms: Mapping[str, Mapping[str, float]]) -> RenderableType:
    table = Table(box=None, expand=True, padding=(0, 1, 0, 0), header_style="dim", pad_edge=False)
    table.add_column("latency, ms", width=_LABEL_WIDTH + 3, no_wrap=True)
    for name, mark in PERCENTILES.items():
        table.add_column(f"{name} {mark}", justify="right", width=7)
    table.add_column("from camera stamp; indented: stage alone", ratio=1, no_wrap=True)
    longest = max((max(stage.values()) for stage in latencies_ms.values()), default=0.0)
    for name in [*STAGES, *(name for name in latencies_ms if name not in STAGES)]:
        stage = latencies_ms.get(name, {})
        figures = [_number(stage.get(percentile), ".2f") for percentile in PERCENTILES]
        table.add_row(f"{'  ' if STAGES.get(name) else ''}{name}", *figures, _Bar(stage, longest))
    return table


class _Bar:
    """A stage's bar, as wide as its column."""

    def __init__(self, stage: Mapping[str, float], longest: float) -> None:
        self._stage = stage
        self._longest = longest

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text(bar(self._stage, self._longest, options.max_width), "cyan")

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(1, options.max_width)


def _unknown(snapshot: Snapshot) -> list[RenderableType]:
    """List what a newer node says and this version does not know."""
    unknown: dict[str, object] = {
        name: count
        for name, count in snapshot.counters.items()
        if name not in _KNOWN and not name.startswith(("frames_", "refused_"))
    }
    unknown.update(snapshot.other)
    told = [_told(name, str(value)) for name, value in unknown.items()]
    return [_labelled({"other": _row(*told)})] if told else []


def _others(others: Sequence[Snapshot]) -> list[RenderableType]:
    if not others:
        return []
    nodes = ", ".join(f"{other.node} ({other.reason or other.state})" for other in others)
    return [_labelled({"other nodes": Text(f"{nodes}; choose with --node")})]


def _row(*parts: Text) -> Text:
    return Text("   ").join(parts)


def _figure(words: str, value: float | None, form: str, unit: str = "") -> Text:
    return _told(words, _number(value, form) + (unit if value is not None else ""))


def _told(words: str, value: str) -> Text:
    return Text.assemble(f"{words} ", (value, "bold"))


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _percent(count: int, total: int) -> float | None:
    return 100 * count / total if total else None
