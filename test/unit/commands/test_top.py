"""What `lightvla top` understands of a status, remembers of a node and draws of both."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import asdict, replace

import pytest
from rich.console import Console, RenderableType

from lightvla_ros.commands._top_view import STAGES, bar, render, sparkline
from lightvla_ros.commands.top import Heard
from lightvla_ros.view.policy_status import Snapshot, node_of, parse_status
from lightvla_ros.view.status_trace import Trace, duration

OK, WARN, ERROR = 0, 1, 2
NODE = "/lightvla_policy"
VALUES = {
    "active": "True",
    "enabled": "True",
    "instruction": "pick up the red cube",
    "epoch": "3",
    "stop_reason": "",
    "stop_message": "",
    "engine": "mini",
    "backend": "onnxruntime",
    "inference_rate_hz": "10.00",
    "action_rate_hz": "19.91",
    "command_rate_hz": "20.02",
    "chunk_rate_hz": "20.01",
    "num_visual_tokens": "128",
    "retained_last": "14",
    "retained_min": "4",
    "retained_median": "13.00",
    "retained_max": "31",
    "ticks": "2000",
    "ticks_missed": "1",
    "ticks_over_budget": "5",
    "move": "900",
    "hold": "90",
    "silent": "10",
    "limited": "2",
    "frames_third_person": "1000",
    "frames_wrist": "999",
    "frames_stale": "7",
    "frames_unpaired": "6",
    "refused_wrist": "2",
    "refused_robot_state": "3",
    "observations_replaced": "8",
    "chunks": "500",
    "chunks_dropped": "4",
    "inferences_failed": "1",
    "worker_restarts": "1",
    "clock_jumps": "0",
    **{
        f"{stage}_{name}_ms": f"{number + share:.2f}"
        for number, stage in enumerate(STAGES, start=1)
        for name, share in (("p50", 0.0), ("p95", 0.5), ("p99", 0.75))
    },
}


def snapshot(level: int = OK, message: str = "", **changes: str) -> Snapshot:
    return parse_status(NODE, level, message, {**VALUES, **changes})


def trace_of(*snapshots: Snapshot) -> Trace:
    """A trace with a snapshot a second, the first at 0 s."""
    trace = Trace(snapshots[0], 0.0)
    for second, later in enumerate(snapshots[1:], start=1):
        trace.add(later, float(second))
    return trace


def text_of(drawn: RenderableType, width: int = 80) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(drawn)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def line_with(text: str, word: str) -> str:
    return next(line for line in text.splitlines() if line.strip().startswith(word))


@pytest.mark.parametrize(
    ("status_name", "node"),
    [
        ("lightvla_policy: policy", "/lightvla_policy"),
        ("left/arm: policy", "/left/arm"),
        ("/left/arm: policy", "/left/arm"),
        ("camera driver: status", None),
    ],
)
def test_a_status_is_a_policy_nodes_by_its_name(status_name: str, node: str | None) -> None:
    assert node_of(status_name) == node


def test_a_status_is_sorted_by_what_its_keys_mean() -> None:
    seen = snapshot()
    assert (seen.state, seen.reason, seen.epoch, seen.num_visual_tokens) == ("acting", "", "3", 128)
    assert seen.rates_hz == {"inference": 10.0, "action": 19.91, "command": 20.02, "chunk": 20.01}
    assert seen.latencies_ms["vision"] == {"p50": 4.0, "p95": 4.5, "p99": 4.75}
    assert list(seen.latencies_ms) == list(STAGES)
    assert seen.retained == {"last": 14.0, "min": 4.0, "median": 13.0, "max": 31.0}
    assert (seen.counters["refused_wrist"], seen.counters["move"]) == (2, 900)
    assert seen.other == {}


def test_a_snapshot_is_json() -> None:
    assert json.loads(json.dumps(asdict(snapshot())))["latencies_ms"]["post"]["p99"] == 7.75


def test_what_a_later_version_says_is_kept_and_shown() -> None:
    seen = snapshot(gpu_name="fast one", temperature_c="61.5", watchdog_kicks="3", load="nan")
    assert seen.other == {"gpu_name": "fast one", "temperature_c": "61.5", "load": "nan"}
    other = line_with(text_of(render(trace_of(seen), 0.0)), "other")
    assert "watchdog_kicks 3" in other and "gpu_name fast one" in other


@pytest.mark.parametrize("value", ["", "nan", "inf", "soon", "1e999"])
def test_a_figure_that_is_none_breaks_nothing(value: str) -> None:
    seen = snapshot(vision_p50_ms=value, retained_last=value, action_rate_hz=value, ticks=value)
    drawn = text_of(render(trace_of(seen), 0.0))
    assert "actions -" in drawn and "last -" in drawn


def test_a_status_without_any_values_is_drawn() -> None:
    assert "ACTING" in text_of(render(trace_of(parse_status(NODE, OK, "", {})), 0.0))


@pytest.mark.parametrize(
    ("reason", "command_rate_hz", "state"),
    [
        ("", "20.00", "acting"),
        ("no_action", "20.00", "holding"),
        ("awaiting_chunk", "20.00", "holding"),
        ("no_action", "0.00", "stopped"),
        ("estop", "20.00", "stopped"),
        ("stale:wrist", "0.00", "stopped"),
    ],
)
def test_holding_is_standing_still_for_the_next_chunk(reason: str, command_rate_hz: str, state: str) -> None:
    assert snapshot(stop_reason=reason, command_rate_hz=command_rate_hz).state == state


def test_an_instruction_can_neither_move_the_cursor_nor_mark_up_text() -> None:
    text = text_of(render(trace_of(snapshot(instruction="up\x1b[2J\r\nand [bold]down[/bold]")), 0.0))
    assert "\x1b" not in text
    assert "up [2J and [bold]down[/bold]" in text


def test_a_stop_is_told_with_code_message_and_time() -> None:
    stopped = snapshot(
        WARN, "too old", stop_reason="stale:wrist", stop_message="wrist is 0.7 s old. Fix: plug it in"
    )
    text = text_of(render(trace_of(snapshot(), *[stopped] * 66), 66.0))
    assert "STOPPED  stale:wrist for 1 min 05 s" in text.splitlines()[0]
    assert "wrist is 0.7 s old. Fix: plug it in" in text.splitlines()[1]


def test_a_state_older_than_the_first_look_has_lasted_at_least_so_long() -> None:
    assert "ACTING  for at least 5 s" in text_of(render(trace_of(*[snapshot()] * 6), 5.0))
    assert "for" not in text_of(render(trace_of(snapshot()), 1.0)).splitlines()[0]


def test_another_reason_is_another_state() -> None:
    trace = trace_of(snapshot(stop_reason="estop"), snapshot(stop_reason="fault"))
    assert trace.state_s(4.0) == 3.0


def test_a_silent_node_is_shown_as_silent_after_three_seconds() -> None:
    trace = trace_of(snapshot())
    assert trace.silence_s(3.0) is None
    headline = text_of(render(trace, 65.0)).splitlines()[0]
    assert "SILENT  nothing heard for 1 min 05 s; last: acting" in headline


def test_counters_that_rise_are_marked_for_ten_seconds() -> None:
    trace = trace_of(snapshot(chunks_dropped="4"), snapshot(chunks_dropped="6"))
    assert "chunks dropped 6 (+2)  " in line_with(text_of(render(trace, 1.0)), "dropped")
    trace.add(snapshot(chunks_dropped="6"), 11.5)
    assert "chunks dropped 6  " in line_with(text_of(render(trace, 11.5)), "dropped")


def test_counters_that_fell_are_a_restarted_nodes() -> None:
    assert trace_of(snapshot(chunks_dropped="4"), snapshot(chunks_dropped="0")).rise("chunks_dropped") == 0


def test_the_three_rates_and_the_chunk_topics_are_told_apart() -> None:
    rates = line_with(text_of(render(trace_of(snapshot()), 0.0)), "rates, Hz")
    assert rates.split()[2:] == [
        "chunks",
        "10.0",
        "actions",
        "19.9",
        "commands",
        "20.0",
        *"chunk topic 20.0".split(),
    ]


def test_the_stages_are_in_the_order_of_the_path_and_unknown_ones_follow() -> None:
    seen = snapshot(gantry_p50_ms="1.00", vision_p99_ms="20.00")
    lines = [line.split() for line in text_of(render(trace_of(seen), 0.0)).splitlines()]
    first = next(number for number, line in enumerate(lines) if line[:1] == ["latency,"])
    table = lines[first + 1 : first + 2 + len(STAGES)]
    assert [line[0] for line in table] == [*STAGES, "gantry"]
    assert table[3][1:4] == ["4.00", "4.50", "20.00"]


def test_counts_and_shares_are_those_of_the_node() -> None:
    text = text_of(render(trace_of(snapshot()), 0.0), width=120)
    assert (
        line_with(text, "commands").split()
        == "commands move 90.0 % hold 9.0 % silent 1.0 % limited 2".split()
    )
    assert line_with(text, "ticks").split() == "ticks all 2000 over budget 0.2 % missed 1".split()
    assert line_with(text, "frames").split()[1:] == (
        "third_person 1000 wrist 999 stale 7 unpaired 6 refused 5".split()
    )
    assert "last 14 of 128   min 4   median 13   max 31" in line_with(text, "retained")


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40)])
def test_a_node_at_work_fits_the_terminal(width: int, height: int) -> None:
    lines = text_of(render(trace_of(*[snapshot()] * 30), 30.0, hint="q quits"), width).splitlines()
    assert len(lines) <= height
    assert max(map(len, lines)) <= width
    assert "q quits" in lines[-1]


@pytest.mark.parametrize("width", [20, 40, 300])
def test_any_width_is_drawn(width: int) -> None:
    assert "ACTING" in text_of(render(trace_of(snapshot()), 0.0), width)


def test_a_node_that_is_not_configured_says_why_and_shows_no_figures() -> None:
    why = "on_configure failed: engines/none; got no manifest.json"
    seen = parse_status(NODE, ERROR, why, {"stop_reason": why})
    assert (seen.state, seen.reason, seen.message) == ("stopped", "", why)
    assert "latency" not in text_of(render(trace_of(seen), 0.0))


@pytest.mark.parametrize(
    ("values", "drawn"), [([], ""), ([5, 5], "▁▁"), ([1, 2, 3, 8], "▁▂▃█"), ([9, 1, 2], "▁█")]
)
def test_a_sparkline_spans_its_newest_values(values: Sequence[float], drawn: str) -> None:
    assert sparkline(values, 4 if len(values) > 3 else 2) == drawn


def test_a_bar_shows_each_percentile_and_is_full_at_the_longest() -> None:
    assert bar({"p50": 2.0, "p95": 4.0, "p99": 5.0}, 10.0, 20) == "████▒▒▒▒░░"
    assert bar({"p50": 10.0}, 10.0, 20) == "█" * 20
    assert bar({}, 10.0, 20) == bar({"p50": 0.0}, 0.0, 20) == ""


@pytest.mark.parametrize(
    ("seconds", "told"), [(0.9, "0 s"), (59.9, "59 s"), (61, "1 min 01 s"), (7325, "2 h 02 min")]
)
def test_durations_are_told_in_two_units(seconds: float, told: str) -> None:
    assert duration(seconds) == told


def heard(wanted: str | None, *names: str) -> Heard:
    ear = Heard(wanted)
    for name in names:
        ear.add(name, OK, "", VALUES)
    return ear


@pytest.mark.parametrize(
    ("wanted", "shown"),
    [(None, "/lightvla_policy"), ("/left/arm", "/left/arm"), ("left/arm", "/left/arm"), ("/arm", None)],
)
def test_one_node_is_shown_and_the_others_are_listed(wanted: str | None, shown: str | None) -> None:
    ear = heard(wanted, "left/arm: policy", "lightvla_policy: policy", "driver: state", "left/arm: policy")
    assert (ear.trace.snapshot.node if ear.trace else None) == shown
    others = {"/left/arm", "/lightvla_policy"} - {shown}
    assert {other.node for other in ear.others} == others
    assert all(f"{node} (acting)" in text_of(ear.view(), 120) for node in others)


def test_without_the_default_name_the_first_heard_is_shown() -> None:
    ear = heard(None, "right/arm: policy", "left/arm: policy")
    assert ear.trace is not None
    assert ear.trace.snapshot.node == "/right/arm"


def test_a_node_not_heard_is_an_error_that_says_what_to_start_or_choose() -> None:
    assert "ros2 launch lightvla_ros policy.launch.py" in str(heard(None).missing(5.0))
    assert "--node /left/arm" in str(heard("/arm", "left/arm: policy").missing(5.0))


def test_a_snapshot_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        snapshot().state = "acting"  # type: ignore[misc]
    assert replace(snapshot(), state="stopped").state == "stopped"
