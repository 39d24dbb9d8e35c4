"""Compares what was inferred on the robot with what is inferred from its recording."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from lightvla_ros.core.inference_record import InferenceRecord


@dataclass(slots=True)
class Parity:
    """Agreement over some inferences.

    Attributes:
        compared: how many.
        identical: how many whose actions agree bit for bit, and whose retained tokens do.
        max_abs_error: largest difference of an action, robot units.
        kept_ious: per inference, retained by both over retained by either.
    """

    compared: int = 0
    identical: int = 0
    max_abs_error: float = 0.0
    kept_ious: list[float] = field(default_factory=list)

    def add(self, recorded: InferenceRecord, replayed: InferenceRecord) -> None:
        """Compare one inference."""
        before, after = np.array(recorded.actions), np.array(replayed.actions)
        same_shape = before.shape == after.shape
        error = float(np.abs(before - after).max()) if same_shape else float("inf")
        iou = _kept_iou(recorded, replayed)
        self.compared += 1
        self.identical += error == 0.0 and iou == 1.0
        self.max_abs_error = max(self.max_abs_error, error)
        self.kept_ious.append(iou)

    @property
    def kept_iou(self) -> float:
        """The smallest of `kept_ious`; 1 before the first."""
        return min(self.kept_ious, default=1.0)


def _kept_iou(recorded: InferenceRecord, replayed: InferenceRecord) -> float:
    before, after = (
        {(name, patch) for name, camera in record.cameras.items() for patch in camera.retained}
        for record in (recorded, replayed)
    )
    return len(before & after) / len(before | after) if before | after else 1.0
