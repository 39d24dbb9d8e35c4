"""What `lightvla verify` shows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from lightvla_ros.backends.verification import Figure, Verdict

_MAX_DIFFERENCES = 10
_NAMES = {
    "prompt_error": "relative error",
    "vision_error": "relative error",
    "vision_cosine": "cosine",
    "kept_iou": "kept-set IoU",
    "kept_iou_apart_from_ties": "kept-set IoU, apart from ties",
    "action_cosine": "action cosine",
    "max_abs_error": "max abs error",
}


def table(verdict: Verdict, report: Mapping[str, Any]) -> str:
    """Lay out a verdict for a terminal.

    Args:
        verdict: what was found.
        report: its mapping, and what the command adds: bundle, backend, kind, reference, inputs, widened.
    """
    widened = ", widened to float32 (this is not what a GPU computes)" if report["widened"] else ""
    counts = [comparison.retained for comparison in verdict.comparisons]
    lines = [
        f"{report['bundle']} on {report['backend']} in {report['kind']}{widened}",
        f"against torch in float32 with {report['reference']}",
        f"worst of {report['inputs']}; {min(counts)} to {max(counts)} tokens retained",
        f"  {'part':<12}{'figure':<32}{'worst':>12}   {'limit':<12}",
        *(_line(figure) for figure in verdict.figures),
        *_beside(verdict, report),
        "passed" if verdict.passed else f"FAILED: {_failures(verdict)}",
    ]
    return "\n".join(lines)


def _line(figure: Figure) -> str:
    mark = "" if figure.passed else "FAILED"
    limit = f"{'>=' if figure.at_least else '<='} {figure.limit:g}"
    value = f"{figure.value:.7f}" if figure.at_least else f"{figure.value:.2e}"
    return f"  {_part(figure.part):<12}{_NAMES[figure.name]:<32}{value:>12}   {limit:<12}{mark}".rstrip()


def _beside(verdict: Verdict, report: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is reported and has no limit of its own."""
    own = report["end_to_end"]
    if "end_to_end" not in verdict.non_finite:
        error, iou = own["max_abs_error"], own["kept_iou"]
        yield f"beside: end to end max abs error {error:.2e}, kept-set IoU {iou:.4f}"
    if verdict.num_differences:
        yield (
            f"beside: kept-set IoU {report['kept_iou']:.4f} on equal patches; "
            f"tokens that differ: {verdict.num_differences}, ties among them: {verdict.num_ties}"
        )
        yield from list(_differences(verdict))[:_MAX_DIFFERENCES]


def _differences(verdict: Verdict) -> Iterator[str]:
    for number, comparison in enumerate(verdict.comparisons):
        for difference in comparison.differences:
            tie = "  tie" if difference.margin <= verdict.thresholds.tie_margin else ""
            yield (
                f"  sample {number}: token {difference.token} retained by the {difference.retained_by} only, "
                f"score margin {difference.margin:.1e}{tie}"
            )


def _failures(verdict: Verdict) -> str:
    return ", ".join(
        f"{_part(part)} (outputs are not finite)" if part in verdict.non_finite else _part(part)
        for part in verdict.failed
    )


def _part(name: str) -> str:
    return name.replace("_", " ")
