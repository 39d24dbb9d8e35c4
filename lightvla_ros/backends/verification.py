"""Judge comparisons by thresholds, and keep the verdict beside the plans it is about.

<plan set>/verification.json    written by `lightvla verify`, read before a node runs the plans
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from lightvla_ros import __version__
from lightvla_ros.backends.comparison import Comparison
from lightvla_ros.backends.thresholds import Thresholds
from lightvla_ros.core.errors import BundleError

RECORD_NAME = "verification.json"
SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """The worst of one figure over all samples, and its limit.

    Attributes:
        part: what it is about: a part of the bundle, "end_to_end", or "reference" for golden samples.
        name: of the figure.
        value: the worst; NaN where an output is not finite.
        limit: what it may be.
        at_least: whether the limit is a lower one.
    """

    part: str
    name: str
    value: float
    limit: float
    at_least: bool

    @property
    def passed(self) -> bool:
        """Whether the value is within the limit; NaN never is."""
        return self.value >= self.limit if self.at_least else self.value <= self.limit


class _Check(NamedTuple):
    part: str
    name: str
    limit: str
    value: Callable[[Comparison, Thresholds], float | None]


def _golden(comparison: Comparison, name: str) -> float | None:
    return None if comparison.golden is None else getattr(comparison.golden, name)


_CHECKS = (
    _Check("reference", "kept_iou", "min_kept_iou", lambda c, _: _golden(c, "kept_iou")),
    _Check("reference", "action_cosine", "min_action_cosine", lambda c, _: _golden(c, "action_cosine")),
    _Check("reference", "max_abs_error", "max_abs_error", lambda c, _: _golden(c, "max_abs_error")),
    _Check("prompt", "prompt_error", "max_prompt_error", lambda c, _: c.prompt_error),
    _Check("vision", "vision_error", "max_vision_error", lambda c, _: c.vision_error),
    _Check("vision", "vision_cosine", "min_vision_cosine", lambda c, _: c.vision_cosine),
    _Check(
        "pruner",
        "kept_iou_apart_from_ties",
        "min_kept_iou",
        lambda c, limits: c.kept_iou_apart_from_ties(limits.tie_margin),
    ),
    _Check("decoder", "action_cosine", "min_action_cosine", lambda c, _: c.action_cosine),
    _Check("decoder", "max_abs_error", "max_abs_error", lambda c, _: c.max_abs_error),
    _Check("end_to_end", "action_cosine", "min_end_to_end_cosine", lambda c, _: c.end_to_end.action_cosine),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Comparisons judged by thresholds; there is at least one."""

    comparisons: Sequence[Comparison]
    thresholds: Thresholds

    @property
    def figures(self) -> tuple[Figure, ...]:
        """Every figure that has a limit, in the order of the parts."""
        figures = (self._figure(check) for check in _CHECKS)
        return tuple(figure for figure in figures if figure is not None)

    @property
    def non_finite(self) -> tuple[str, ...]:
        """Parts whose outputs are not finite in some sample."""
        return tuple(dict.fromkeys(part for c in self.comparisons for part in c.non_finite))

    @property
    def failed(self) -> tuple[str, ...]:
        """Parts that failed, in the order of the parts: an earlier one may have spoilt a later one."""
        failed = {figure.part for figure in self.figures if not figure.passed} | set(self.non_finite)
        return tuple(part for part in dict.fromkeys(check.part for check in _CHECKS) if part in failed)

    @property
    def passed(self) -> bool:
        """Whether every figure is within its limit and every output finite."""
        return not self.failed

    @property
    def num_differences(self) -> int:
        """Tokens retained by only one side, over all samples."""
        return sum(len(c.differences) for c in self.comparisons)

    @property
    def num_ties(self) -> int:
        """Those of them that are ties."""
        limit = self.thresholds.tie_margin
        return sum(difference.margin <= limit for c in self.comparisons for difference in c.differences)

    def to_mapping(self) -> dict[str, Any]:
        """Return plain JSON values: the verdict, the worst of every figure, and all samples."""
        comparisons = self.comparisons
        end_to_end = [c.end_to_end for c in comparisons]
        content = {
            "passed": self.passed,
            "failed": self.failed,
            "non_finite": self.non_finite,
            "action_cosine": _lowest(c.action_cosine for c in comparisons),
            "max_abs_error": _highest(c.max_abs_error for c in comparisons),
            "kept_iou": _lowest(c.kept_iou for c in comparisons),
            "differences": self.num_differences,
            "ties": self.num_ties,
            "end_to_end": {
                "action_cosine": _lowest(distance.action_cosine for distance in end_to_end),
                "max_abs_error": _highest(distance.max_abs_error for distance in end_to_end),
                "kept_iou": _lowest(distance.kept_iou for distance in end_to_end),
            },
            "figures": [{**asdict(figure), "passed": figure.passed} for figure in self.figures],
            "thresholds": asdict(self.thresholds),
            "samples": [asdict(comparison) for comparison in comparisons],
        }
        plain: dict[str, Any] = _json(content)
        return plain

    def _figure(self, check: _Check) -> Figure | None:
        values = [check.value(c, self.thresholds) for c in self.comparisons]
        known = [value for value in values if value is not None]
        if not known:
            return None
        at_least = check.limit.startswith("min_")
        return Figure(
            part=check.part,
            name=check.name,
            value=_lowest(known) if at_least else _highest(known),
            limit=getattr(self.thresholds, check.limit),
            at_least=at_least,
        )


def write_record(directory: Path, verdict: Mapping[str, Any], fingerprint: str) -> Path:
    """Write what was found about the plan set with this fingerprint beside it."""
    path = directory / RECORD_NAME
    content = {
        "schema_version": SCHEMA_VERSION,
        "created_by": f"lightvla_ros {__version__}",
        "fingerprint": fingerprint,
        **verdict,
    }
    staging = path.with_suffix(".json.new")
    staging.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    staging.replace(path)
    return path


def read_record(directory: Path) -> dict[str, Any]:
    """Read `verification.json` of a plan set.

    Raises:
        BundleError: it is missing, not JSON or of another schema version.
    """
    path = directory / RECORD_NAME
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise _unverified(path, "no such file", directory) from None
    except ValueError as e:
        raise _unverified(path, f"invalid JSON ({e})", directory) from e
    version = content.get("schema_version") if isinstance(content, dict) else None
    if version != SCHEMA_VERSION:
        raise _unverified(path, f"schema_version {version}", directory)
    record: dict[str, Any] = content
    return record


def require_verified(directory: Path, fingerprint: str) -> None:
    """Check that a plan set has been verified, as it is now.

    Args:
        directory: of the plan set.
        fingerprint: `PlanSet.fingerprint.digest`.

    Raises:
        BundleError: there is no verification, it failed, or it is about other plans.
    """
    record = read_record(directory)
    path = directory / RECORD_NAME
    if record.get("fingerprint") != fingerprint:
        raise _unverified(path, "the verification of other plans", directory)
    if record.get("passed") is not True:
        raise _unverified(path, f"failed: {', '.join(record.get('failed', []))}", directory)


def _unverified(path: Path, got: str, directory: Path) -> BundleError:
    bundle = directory.parent.parent if directory.parent.name == "plans" else "BUNDLE"
    return BundleError(
        str(path),
        got=got,
        expected="a passed verification of these plans",
        fix=f"run `lightvla verify {bundle} --backend tensorrt --plans {directory}` on this machine; "
        "what fails needs another precision (`lightvla build --precision`)",
    )


def _lowest(values: Iterable[float]) -> float:
    """Return the minimum, or NaN where there is one."""
    known = list(values)
    return math.nan if any(map(math.isnan, known)) else min(known)


def _highest(values: Iterable[float]) -> float:
    return -_lowest(-value for value in values)


def _json(value: Any) -> Any:
    """Replace tuples by lists and what JSON cannot say, NaN and infinity, by null."""
    if isinstance(value, dict):
        return {key: _json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_json(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
