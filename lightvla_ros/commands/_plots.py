"""Pictures of what `lightvla bench` measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightvla_ros.commands._stage_latency import TOTAL, Measured
from lightvla_ros.core.errors import EngineError
from lightvla_ros.core.policy import STAGES

# 900 x 450 pixels.
_INCHES, _DPI = (9.0, 4.5), 100
_STAGE_COLORS = ("#9aa5b1", "#2a7f9e", "#e0a030", "#23395b", "#c9b8a8")
_BACKEND_COLORS = ("#c0392b", "#e08e45", "#1f6f8b", "#5b8c5a", "#7d5ba6")
_TYPICAL_COUNT = 78


def require_matplotlib() -> None:
    """Raise `EngineError` where there is nothing to draw with."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as e:
        raise EngineError(
            "plots", got=str(e), expected="matplotlib", fix="pip install 'lightvla_ros[plot]'"
        ) from e


def draw_latency(model: Measured, path: Path) -> None:
    """Draw median latency of whole chunks against retained tokens, with the FLOPs model and the roofline.

    The FLOPs model is the last backend's own measurement at the largest count, with its decoder's
    time scaled by operations.
    """
    figure, axes = _figure()
    for backend, color in zip(model.backends, _BACKEND_COLORS, strict=False):
        times = [model.p50_ms(backend, count, TOTAL) for count in model.retained]
        axes.plot(model.retained, times, "o-", color=color, label=backend, linewidth=2, markersize=5)
    backend = model.backends[-1]
    axes.plot(
        model.retained, _scaled(model, backend), "--", color="#444444", label=f"{backend},\nscaled by FLOPs"
    )
    bounds = [row.bound_ms for row in model.rows if (row.backend, row.stage) == (backend, TOTAL)]
    if None not in bounds:
        axes.plot(model.retained, bounds, ":", color="black", linewidth=2, label="roofline\nof this machine")
    axes.set_xlabel("visual tokens retained")
    axes.set_ylabel("latency of a chunk, median (ms)")
    axes.set_xlim(0, model.retained[-1] * 1.03)
    axes.set_ylim(bottom=0)
    axes.set_title(f"{model.name}: latency against retained tokens", loc="left", fontsize=11)
    _finish(figure, axes, path)


def draw_stages(model: Measured, path: Path) -> None:
    """Draw the stages of every backend on top of each other, at the largest and at a usual count."""
    figure, axes = _figure()
    typical = min(model.retained, key=lambda count: abs(count - _TYPICAL_COUNT))
    bars = [
        (backend, count)
        for count in sorted({model.retained[-1], typical}, reverse=True)
        for backend in model.backends
    ]
    names = [f"{backend}, {count} retained" for backend, count in bars]
    left = [0.0] * len(bars)
    for stage, color in zip(STAGES, _STAGE_COLORS, strict=True):
        widths = [model.p50_ms(backend, count, stage) for backend, count in bars]
        axes.barh(names, widths, left=left, color=color, label=stage, height=0.65)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    for position, total in enumerate(left):
        axes.text(total + max(left) * 0.01, position, f"{total:.0f} ms", va="center", fontsize=9)
    axes.invert_yaxis()
    axes.set_xlim(0, max(left) * 1.12)
    axes.set_xlabel("latency of a chunk, sum of the stages' medians (ms)")
    axes.set_title(f"{model.name}: where the time goes", loc="left", fontsize=11)
    _finish(figure, axes, path, grid="x")


def _scaled(model: Measured, backend: str) -> list[float]:
    """Return totals as they would be if the decoder's time followed its operations exactly."""
    largest = model.retained[-1]
    decoder = model.p50_ms(backend, largest, "decoder")
    rest = model.p50_ms(backend, largest, TOTAL) - decoder
    return [rest + decoder * entry.expected for entry in model.scaling if entry.backend == backend]


def _figure() -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=_INCHES, dpi=_DPI, layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _finish(figure: Any, axes: Any, path: Path, *, grid: str = "both") -> None:
    axes.grid(axis=grid, color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    figure.savefig(path)
