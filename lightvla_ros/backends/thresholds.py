"""How far an engine may be from its reference: one block of limits per precision or quantisation, in a file.

`config/verification.json` holds them. `tie_margin` is twice the unit roundoff of the precision (float32: what
summing in another order does), because both scores that compete are rounded; a token that changes within it
is reported and not counted. The rest is two to four times what `engines/mini` was measured to need, in 32
random inputs and 32 frames of the tabletop world; int4, which was worse than int8, is held to int8's limits.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, fields
from pathlib import Path

from lightvla_ros.core.errors import ConfigError
from lightvla_ros.core.paths import share_directories

THRESHOLDS_FILE = Path("config") / "verification.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """The limits of one precision; each is that of the figure it is named after, see `Comparison`."""

    max_prompt_error: float
    max_vision_error: float
    min_vision_cosine: float
    min_kept_iou: float
    tie_margin: float
    min_action_cosine: float
    max_abs_error: float
    min_end_to_end_cosine: float


def load_thresholds(kind: str, overrides: Path | None = None) -> Thresholds:
    """Read the limits of a precision or quantisation.

    Args:
        kind: for example "bfloat16" or "int8"; the name of a block.
        overrides: file of the same form whose values take the place of the shipped ones.

    Raises:
        ConfigError: a file is missing or not JSON, a block or key is unknown, or a value is no limit.
    """
    shipped = _shipped_file()
    blocks = _read_blocks(shipped)
    if overrides is not None:
        for name, values in _read_blocks(overrides).items():
            blocks[name] = {**blocks.get(name, {}), **values}
    source = str(overrides or shipped)
    if kind not in blocks:
        raise ConfigError(
            f"thresholds in {source}",
            got=f"blocks {sorted(blocks)}",
            expected=f"one for '{kind}'",
            fix=f'add a block "{kind}" to a file and pass it with --thresholds',
        )
    missing = sorted(_LIMITS - blocks[kind].keys())
    if missing:
        raise ConfigError(
            f"thresholds of '{kind}' in {source}",
            got=f"no {missing}",
            expected=f"all of {sorted(_LIMITS)}",
            fix=f'add what is missing to the block "{kind}"',
        )
    return Thresholds(**blocks[kind])


_LIMITS = frozenset(field.name for field in fields(Thresholds))


def _shipped_file() -> Path:
    candidates = [share / THRESHOLDS_FILE for share in share_directories()]
    found = next((path for path in candidates if path.is_file()), None)
    if found is None:
        raise ConfigError(
            str(THRESHOLDS_FILE),
            got=f"none in {[str(path) for path in candidates]}",
            expected="the thresholds that came with the package",
            fix="install lightvla_ros again",
        )
    return found


def _read_blocks(path: Path) -> dict[str, dict[str, float]]:
    fix = f"take {THRESHOLDS_FILE} of the package as a pattern"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise ConfigError(str(path), got=str(e), expected="a JSON file of thresholds", fix=fix) from e
    if not isinstance(content, dict) or not all(isinstance(block, dict) for block in content.values()):
        raise ConfigError(str(path), got=str(content)[:60], expected="an object of objects", fix=fix)
    for name, block in content.items():
        if unknown := sorted(block.keys() - _LIMITS):
            raise ConfigError(
                f"thresholds of '{name}' in {path}",
                got=f"unknown {unknown}",
                expected=f"some of {sorted(_LIMITS)}",
                fix=fix,
            )
        for key, value in block.items():
            if not _is_limit(value):
                raise ConfigError(
                    f"threshold '{name}.{key}' in {path}",
                    got=repr(value),
                    expected="a finite number of at least 0",
                    fix=fix,
                )
    return content


def _is_limit(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < math.inf
