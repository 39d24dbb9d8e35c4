"""Compare an engine with a reference, part by part and end to end, on the same inputs.

A part is judged on what the reference gives it: the pruner on the reference's patches, the decoder on the
reference's patches and retained set. So the part that is wrong shows, and a near tie that falls the other
way is neither hidden by, nor taken for, an error of the decoder.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from lightvla_ros.core.errors import EngineError
from lightvla_ros.core.policy import Engine

Floats = NDArray[np.float32]


class InspectableEngine(Engine, Protocol):
    """An engine whose handles can be read and written by a host that wants to compare them."""

    def read_patches(self, patches: Any) -> Floats:
        """Return the visual tokens behind a handle as float32 [N, D]."""
        ...

    def write_patches(self, values: Floats) -> Any:
        """Return a handle of float32 [N, D] visual tokens, rounded to the engine's precision.

        Engines with one buffer overwrite it: handles of earlier images are gone.
        """
        ...

    def read_prompt(self, prompt: Any) -> tuple[Floats, Floats]:
        """Return tokens and pruner keys behind a handle, each float32 [n - 1, D]."""
        ...


class ReferenceEngine(InspectableEngine, Protocol):
    """An engine that also shows why it retains what it retains."""

    def score(self, patches: Any, prompt: Any, proprio: Floats) -> Floats:
        """Return the pruner's scores: float32 [Q, N], row i is query i (spec §4.1)."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EngineSample:
    """One set of engine inputs, and what they should give where somebody else has worked that out.

    Attributes:
        input_ids: int64 [n], BOS first.
        pixel_values: float32 [1, C, S, S].
        proprio: float32 [P], normalised.
        normalized_actions: float32 [chunk_size, action_dim] expected of the reference, or None.
        keep_mask: bool [N] expected of the reference, or None.
    """

    input_ids: NDArray[np.int64]
    pixel_values: Floats
    proprio: Floats
    normalized_actions: Floats | None = None
    keep_mask: NDArray[np.bool_] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A token that only one of the two retained.

    Attributes:
        token: its index.
        retained_by: "reference" or "engine".
        margin: how much better the reference scores its own choice than the engine's, relative to the
            score; what rounding can do to a score is a tie.
    """

    token: int
    retained_by: str
    margin: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkDistance:
    """How far one answer, actions and retained set, is from another.

    Attributes:
        action_cosine: between the normalised chunks.
        max_abs_error: largest difference of a normalised action.
        kept_iou: intersection over union of the retained sets.
    """

    action_cosine: float
    max_abs_error: float
    kept_iou: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """How far an engine is from its reference on one sample; NaN where something is not finite.

    Attributes:
        retained: tokens the reference retained.
        prompt_error: largest difference of prompt tokens or keys, relative to the largest value.
        vision_error: norm of the patches' difference over the norm of the patches.
        vision_cosine: between the patches, the worst token.
        kept_iou: of the retained sets, both on the reference's patches.
        either: tokens that either of these two sets has.
        differences: tokens that only one of them has.
        action_cosine: of the decoder on the reference's patches and retained set.
        max_abs_error: likewise, the largest difference of a normalised action.
        end_to_end: the engine on its own patches and set.
        golden: the reference against what the sample expects, or None.
        non_finite: parts of the engine whose outputs are not finite; "end_to_end" among them.
    """

    retained: int
    prompt_error: float
    vision_error: float
    vision_cosine: float
    kept_iou: float
    either: int
    differences: tuple[Difference, ...]
    action_cosine: float
    max_abs_error: float
    end_to_end: ChunkDistance
    golden: ChunkDistance | None = None
    non_finite: tuple[str, ...] = ()

    def kept_iou_apart_from_ties(self, tie_margin: float) -> float:
        """Return `kept_iou` as if every tie had fallen the reference's way."""
        real = sum(difference.margin > tie_margin for difference in self.differences)
        return (self.either - real) / self.either


def compare(reference: ReferenceEngine, engine: InspectableEngine, sample: EngineSample) -> Comparison:
    """Run one sample through both.

    Raises:
        EngineError: a stage fails, or the reference itself is not finite.
    """
    expected = _run(reference, sample)
    if not all(np.isfinite(array).all() for array in (expected.patches, expected.actions)):
        raise EngineError(
            "reference of the comparison",
            got="non-finite values",
            expected="finite numbers",
            fix="check the weights of the checkpoint",
        )
    score = reference.score(expected.handle, expected.prompt, sample.proprio)
    own = _run(engine, sample)
    patches = engine.write_patches(expected.patches)
    kept = engine.prune(patches, own.prompt, sample.proprio)
    actions = engine.decode(patches, expected.retained, own.prompt, sample.proprio)
    prompts = list(zip(own.prompt_values, expected.prompt_values, strict=True))
    decoded = _chunk_distance(actions, kept, expected)
    return Comparison(
        retained=len(expected.retained),
        prompt_error=max(_largest_error(got, wanted) for got, wanted in prompts),
        vision_error=_norm_error(own.patches, expected.patches),
        vision_cosine=min(map(_cosine, own.patches, expected.patches)),
        kept_iou=decoded.kept_iou,
        either=len(np.union1d(kept, expected.retained)),
        differences=differences(score, expected.retained, kept),
        action_cosine=decoded.action_cosine,
        max_abs_error=decoded.max_abs_error,
        end_to_end=_chunk_distance(own.actions, own.retained, expected),
        golden=_golden_distance(expected, sample),
        non_finite=_non_finite(
            prompt=own.prompt_values,
            vision=(own.patches,),
            # A pruner whose scores are not finite retains nothing.
            pruner=(np.zeros(0) if len(kept) else np.array([np.nan]),),
            decoder=(actions,),
            end_to_end=(own.actions,),
        ),
    )


def differences(
    score: Floats, expected: NDArray[np.int64], kept: NDArray[np.int64]
) -> tuple[Difference, ...]:
    """Return the tokens that only one set has, with the score margin that separates them.

    A token comes in when one query prefers it; it goes when every query that chose it finds another.

    Args:
        score: float32 [Q, N] of the reference, row i is query i.
        expected: int64 [K] tokens the reference retained.
        kept: int64 [K'] tokens the engine retained, on the same patches.
    """
    best = score.max(axis=1)
    scale = np.maximum(np.abs(best), np.finfo(np.float32).tiny)
    chosen = score.argmax(axis=1)
    replacement = score[:, kept].max(axis=1, initial=-np.inf)
    added = [
        Difference(token=int(j), retained_by="engine", margin=float(((best - score[:, j]) / scale).min()))
        for j in np.setdiff1d(kept, expected)
    ]
    dropped = [
        Difference(
            token=int(j),
            retained_by="reference",
            margin=float(((best - replacement) / scale)[chosen == j].max(initial=0.0)),
        )
        for j in np.setdiff1d(expected, kept)
    ]
    return (*dropped, *added)


class _Outputs(NamedTuple):
    """What one engine gives for one sample, as handles and as host arrays."""

    handle: Any
    prompt: Any
    prompt_values: tuple[Floats, Floats]
    patches: Floats
    retained: NDArray[np.int64]
    actions: Floats


def _run(engine: InspectableEngine, sample: EngineSample) -> _Outputs:
    prompt = engine.encode_prompt(sample.input_ids)
    handle = engine.encode_images(sample.pixel_values)
    patches = engine.read_patches(handle)
    retained = engine.prune(handle, prompt, sample.proprio)
    # Nothing retained means that the scores are not finite; so would be the actions.
    actions = (
        engine.decode(handle, retained, prompt, sample.proprio)
        if len(retained)
        else np.full((1, 1), np.nan, dtype=np.float32)
    )
    return _Outputs(handle, prompt, engine.read_prompt(prompt), patches, retained, actions)


def _golden_distance(reference: _Outputs, sample: EngineSample) -> ChunkDistance | None:
    if sample.normalized_actions is None or sample.keep_mask is None:
        return None
    expected = reference._replace(
        actions=sample.normalized_actions, retained=np.flatnonzero(sample.keep_mask)
    )
    return _chunk_distance(reference.actions, reference.retained, expected)


def _chunk_distance(actions: Floats, kept: NDArray[np.int64], expected: _Outputs) -> ChunkDistance:
    return ChunkDistance(
        action_cosine=_cosine(actions, expected.actions),
        max_abs_error=float(np.abs(actions - expected.actions).max()),
        kept_iou=len(np.intersect1d(kept, expected.retained)) / len(np.union1d(kept, expected.retained)),
    )


def _non_finite(**outputs: tuple[NDArray[Any], ...]) -> tuple[str, ...]:
    return tuple(
        part for part, arrays in outputs.items() if not all(np.isfinite(array).all() for array in arrays)
    )


def _cosine(a: Floats, b: Floats) -> float:
    if not np.isfinite(a).all():
        return float("nan")
    x, y = (array.astype(np.float64).ravel() for array in (a, b))
    return float(x @ y / max(np.linalg.norm(x) * np.linalg.norm(y), np.finfo(np.float64).tiny))


def _largest_error(a: Floats, b: Floats) -> float:
    return float(np.abs(a - b).max() / max(np.abs(b).max(), np.finfo(np.float32).tiny))


def _norm_error(a: Floats, b: Floats) -> float:
    return float(np.linalg.norm(a - b) / max(np.linalg.norm(b), np.finfo(np.float32).tiny))
