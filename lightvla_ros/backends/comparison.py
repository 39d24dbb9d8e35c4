"""Compare an engine with a reference, stage by stage, on the same inputs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lightvla_ros.core.errors import EngineError
from lightvla_ros.core.policy import Engine

MIN_ACTION_COSINE = 0.999
MAX_ABS_ERROR = 1e-3
MIN_KEPT_IOU = 0.99


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EngineSample:
    """One set of engine inputs.

    Attributes:
        input_ids: int64 [n], BOS first.
        pixel_values: float32 [1, C, S, S].
        proprio: float32 [P], normalised.
    """

    input_ids: NDArray[np.int64]
    pixel_values: NDArray[np.float32]
    proprio: NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """How far an engine is from its reference on one sample.

    Attributes:
        action_cosine: between the normalised chunks.
        max_abs_error: largest difference of a normalised action.
        kept_iou: intersection over union of the retained sets.
        retained: tokens the reference retained.
    """

    action_cosine: float
    max_abs_error: float
    kept_iou: float
    retained: int

    @property
    def passed(self) -> bool:
        """Whether every figure is within its threshold."""
        return (
            self.action_cosine >= MIN_ACTION_COSINE
            and self.max_abs_error <= MAX_ABS_ERROR
            and self.kept_iou >= MIN_KEPT_IOU
        )


def compare(reference: Engine, engine: Engine, sample: EngineSample) -> Comparison:
    """Run one sample through both.

    Actions are compared on the reference's retained set: a near tie that falls the other way shows in
    `kept_iou` and must not hide, or be taken for, an error of the decoder.

    Raises:
        EngineError: the engine gave non-finite actions.
    """
    reference_patches = reference.encode_images(sample.pixel_values)
    reference_prompt = reference.encode_prompt(sample.input_ids)
    retained = reference.prune(reference_patches, reference_prompt, sample.proprio)
    expected = reference.decode(reference_patches, retained, reference_prompt, sample.proprio)

    patches, prompt = engine.encode_images(sample.pixel_values), engine.encode_prompt(sample.input_ids)
    kept = engine.prune(patches, prompt, sample.proprio)
    actions = engine.decode(patches, retained, prompt, sample.proprio)
    if not np.isfinite(actions).all():
        raise EngineError("actions of the engine", got="non-finite values", expected="finite numbers")
    return Comparison(
        action_cosine=_cosine(actions, expected),
        max_abs_error=float(np.abs(actions - expected).max()),
        kept_iou=len(np.intersect1d(kept, retained)) / len(np.union1d(kept, retained)),
        retained=len(retained),
    )


def worst(comparisons: list[Comparison]) -> Comparison:
    """Return the worst of every figure over all samples, and the smallest retained count."""
    return Comparison(
        action_cosine=min(c.action_cosine for c in comparisons),
        max_abs_error=max(c.max_abs_error for c in comparisons),
        kept_iou=min(c.kept_iou for c in comparisons),
        retained=min(c.retained for c in comparisons),
    )


def _cosine(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    x, y = a.ravel().astype(np.float64), b.ravel().astype(np.float64)
    return float(x @ y / max(np.linalg.norm(x) * np.linalg.norm(y), np.finfo(np.float64).tiny))
