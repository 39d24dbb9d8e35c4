"""What `lightvla bench` tells: tables for people, one mapping for scripts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from lightvla_ros.backends.roofline import Roofline
from lightvla_ros.commands._bench_engines import EngineChoice
from lightvla_ros.commands._stage_latency import TOTAL, Measured, Row, Scaling
from lightvla_ros.core.policy import STAGES


def table(model: Measured) -> str:
    """Return latencies, speed and decoder scaling of one model on every backend.

    The speed-up is over the reference-style engine at the same count, where that was measured too.
    """
    sizes = f"{model.model.num_patches} visual tokens, {model.prompt_tokens} prompt tokens"
    lines = [f"\n{model.name}: {sizes}; p50 / p95 in ms"]
    stages = (*STAGES, TOTAL)
    for backend in model.backends:
        header = "".join(f"{stage:>17}" for stage in stages) + _speed_header()
        lines += ["", f"{backend:<17}{header}"]
        for count in model.retained:
            rows = [row for row in model.rows if (row.backend, row.retained) == (backend, count)]
            lines.append(
                f"{count:>8} retained" + "".join(_cell(row) for row in rows) + _speed(rows[-1], model)
            )
    lines += [
        "",
        "decoder time relative to the largest count",
        f"{'backend':<16}{'retained':>9}{'measured':>10}{'by FLOPs':>10}{'quotient':>10}",
    ]
    lines += [_scaling_line(scaling) for scaling in model.scaling]
    return "\n".join(lines)


def summary(
    measured: Sequence[Measured], roofline: Roofline | None, choice: EngineChoice
) -> dict[str, object]:
    """Return every figure as plain JSON values."""
    return {
        "rows": [_row(model.name, row) for model in measured for row in model.rows],
        "decoder_scaling": [
            {"model": model.name, **asdict(entry), "quotient": entry.measured / entry.expected}
            for model in measured
            for entry in model.scaling
        ],
        "speedup": [
            {"model": model.name, "backend": backend, "retained": count, "speedup": speedup}
            for model in measured
            for backend in model.backends
            for count in model.retained
            if (speedup := model.speedup(backend, count)) is not None
        ],
        "roofline": None if roofline is None else asdict(roofline),
        "threads": choice.num_threads,
        "device": choice.device,
    }


def _row(model: str, row: Row) -> dict[str, object]:
    return {"model": model, **asdict(row), "gflops": row.gflops, "fraction": row.fraction}


def _cell(row: Row) -> str:
    return f"{row.p50_ms:>9.2f} /{row.p95_ms:>6.1f}"


def _speed_header() -> str:
    return f"{'GFLOP/s':>9}{'bound ms':>10}{'speed-up':>10}"


def _speed(total: Row, model: Measured) -> str:
    bound = "-" if total.bound_ms is None else f"{total.bound_ms:.2f}"
    speedup = model.speedup(total.backend, total.retained)
    return f"{total.gflops or 0:>9.0f}{bound:>10}{'-' if speedup is None else f'{speedup:.2f}':>10}"


def _scaling_line(scaling: Scaling) -> str:
    return (
        f"{scaling.backend:<16}{scaling.retained:>9}{scaling.measured:>10.2f}{scaling.expected:>10.2f}"
        f"{scaling.measured / scaling.expected:>10.2f}"
    )
