"""The record of a training: `log.jsonl`, and TensorBoard's files where they are wanted."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from lightvla_ros.learn.training import Report

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

LOG_FILE = "log.jsonl"
_DIGITS = 6


class TrainingLog:
    """Write reports, one JSON object a line.

    Args:
        directory: of the run.
        stages: names of the run's stages, in order.
        keep: (stage, step) up to which an earlier log is kept; what was logged later is trained again.
        tensorboard: also write what TensorBoard shows, below `directory`.
    """

    def __init__(
        self, directory: Path, stages: list[str], *, keep: tuple[int, int], tensorboard: bool
    ) -> None:
        self._board = _open_board(directory / "tensorboard") if tensorboard else None
        path = directory / LOG_FILE
        kept = [
            line for line, values in _lines(path) if (stages.index(values["stage"]), values["step"]) <= keep
        ]
        path.write_text("".join(kept), encoding="utf-8")
        self._file = path.open("a", encoding="utf-8")

    def __enter__(self) -> TrainingLog:
        """Return the log."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the files."""
        self._file.close()
        if self._board is not None:
            self._board.close()

    def write(self, report: Report) -> None:
        """Append a report."""
        values = flat(report)
        self._file.write(json.dumps(values) + "\n")
        self._file.flush()
        if self._board is not None:
            for name, value in values.items():
                if name not in ("stage", "step", "steps"):
                    self._board.add_scalar(f"{report.stage}/{name}", value, report.step)
            self._board.flush()


def flat(report: Report) -> dict[str, Any]:
    """Return a report's figures, those of held-out chunks among them, rounded for reading."""
    values = asdict(report)
    values.update(values.pop("held_out"))
    return {
        name: round(value, _DIGITS) if isinstance(value, float) else value for name, value in values.items()
    }


def _lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the whole lines of a log; the last may have been cut off."""
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if path.is_file() else ():
        try:
            yield line, json.loads(line)
        except ValueError:
            return


def _open_board(directory: Path) -> SummaryWriter:
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(directory))
