"""The file that a killed training goes on from: written whole or not at all."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lightvla_ros.core.errors import CheckpointError

STATE_FILE = "state.pt"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingState:
    """Where a run stands.

    There is no generator among it: batches and noise are functions of seed, stage and step (`seeds.py`).

    Attributes:
        stage: number of the stage under way.
        training: `StageTraining.state_dict`: step, weights, averaged weights, optimiser.
        bad_reports: what the collapse guard has counted.
    """

    stage: int
    training: dict[str, Any]
    bad_reports: int


def save_state(directory: Path, state: TrainingState) -> None:
    """Write the state; after a crash at any moment either the old or the new one is there."""
    unfinished = directory / f"{STATE_FILE}.part"
    with unfinished.open("wb") as file:
        torch.save({"stage": state.stage, "training": state.training, "bad_reports": state.bad_reports}, file)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(directory / STATE_FILE)


def load_state(directory: Path) -> TrainingState | None:
    """Read the state to the CPU; None when the run ended before its first one.

    Raises:
        CheckpointError: the file is damaged.
    """
    path = directory / STATE_FILE
    if not path.is_file():
        return None
    try:
        return TrainingState(**torch.load(path, map_location="cpu", weights_only=True))
    except Exception as error:
        raise CheckpointError(
            str(path),
            got=f"{type(error).__name__}: {str(error).splitlines()[0]}",
            expected="the state of a training",
            fix="train anew into another --out",
        ) from error
