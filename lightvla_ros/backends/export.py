"""Write a model as an engine bundle: four ONNX parts, the tokenizer and the manifest.

One path for every size: the parts are traced without weights, which are then read one by one from a live
model, a checkpoint or another bundle. Weights keep their state-dict names (behind "model.") so that
`model_from_bundle` reads them back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from lightvla_ros import __version__
from lightvla_ros.backends.bundle_model import weights_hash
from lightvla_ros.backends.export_graphs import graphs
from lightvla_ros.backends.export_part import write_part
from lightvla_ros.backends.export_staging import Staging, check_target, staging
from lightvla_ros.backends.length_buckets import default_prompt_buckets, default_retained_buckets
from lightvla_ros.backends.manifest import PRECISIONS, Manifest, Part
from lightvla_ros.backends.tokenizer import TOKENIZER_NAME
from lightvla_ros.core.errors import ConfigError
from lightvla_ros.core.policy_config import PolicyConfig
from lightvla_ros.model.lightvla import LightVla
from lightvla_ros.model.policy_config import check_policy_fits
from lightvla_ros.model.stored_model import StoredModel, num_weights

# Called with what is being done, how much is done and how much there is: weights checked, bytes written.
ExportProgress = Callable[[str, int, int], None]

# One file is handier, but is held in memory several times while it is written and read.
_INLINE_BYTES = 128 << 20


def export_bundle(
    model: LightVla | StoredModel,
    policy: PolicyConfig,
    directory: Path,
    *,
    precision: str = "float32",
    tokenizer: str | None = None,
    length_buckets: Sequence[int] | None = None,
    prompt_buckets: Sequence[int] | None = None,
    notes: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    fresh: bool = False,
    inline_bytes: int = _INLINE_BYTES,
    progress: ExportProgress | None = None,
) -> Manifest:
    """Write a bundle; the directory appears whole or not at all.

    Of a stored model never more than a few tensors are in memory, beside the parts small enough for one
    file. An interrupted export leaves its finished parts in a hidden directory beside the target, from
    which the same export goes on.

    Args:
        model: a network in memory, in any dtype on any device, or one on disk.
        policy: everything besides weights.
        directory: where the bundle goes.
        precision: of the weights, one of `PRECISIONS`.
        tokenizer: contents of `tokenizer.json`; None writes a bundle that takes token ids only.
        length_buckets: retained counts for engines with static shapes; None chooses up to N.
        prompt_buckets: likewise prompt tokens; None chooses up to the longest prompt.
        notes: how the model was trained, how it did.
        overwrite: replace a bundle that is already there.
        fresh: do not go on with an interrupted export.
        inline_bytes: a part with at most so many bytes of weights is one file.
        progress: called while weights are checked and written.

    Raises:
        BundleError: the directory is in use, or the disk is full.
        CheckpointError: a weight of a stored model cannot be read or is not finite.
        ConfigError: the precision is unknown, a bucket is out of range, or policy and model contradict
            each other.
        SpecError: a weight is too large for float16.
    """
    dtype = _dtype(precision)
    check_policy_fits(policy, model.config)
    check_target(directory, overwrite=overwrite)
    stored = _stored(model)
    report = progress or _silent
    # Reads, and so checks, every weight before anything is written.
    count = num_weights(stored.config)
    digest = stored.weights_hash or weights_hash(
        stored.weights, lambda done: report("checking weights", done, count)
    )
    manifest = Manifest(
        created_by=f"lightvla_ros {__version__}",
        checkpoint_hash=digest,
        precision=precision,
        model=stored.config,
        policy=policy,
        parts={},
        length_buckets=_checked_buckets(length_buckets, stored.config.num_patches),
        prompt_buckets=tuple(prompt_buckets or default_prompt_buckets(policy.max_prompt_tokens - 1)),
        tokenizer=None if tokenizer is None else TOKENIZER_NAME,
        notes=dict(notes or {}),
    )
    with staging(directory, _identity(manifest, inline_bytes), fresh=fresh) as stage:
        stage.check_space(count * dtype.itemsize)
        parts = _write_parts(stored, manifest, stage, inline_bytes, report)
        if tokenizer is not None:
            (stage.bundle / TOKENIZER_NAME).write_text(tokenizer, encoding="utf-8")
        manifest = replace(manifest, parts=parts)
        manifest.write(stage.bundle)
        stage.move_to(directory)
    return manifest


def _write_parts(
    stored: StoredModel, manifest: Manifest, stage: Staging, inline_bytes: int, report: ExportProgress
) -> dict[str, Part]:
    parts = {}
    for name, graph in graphs(stored.config, manifest.policy, _dtype(manifest.precision)).items():
        part = stage.finished(name)
        if part is None:
            part = write_part(
                stage.bundle / f"{name}.onnx",
                graph,
                stored.weights,
                inline_bytes=inline_bytes,
                progress=partial(report, name),
            )
            stage.record(name, part)
        parts[name] = part
    return parts


def _checked_buckets(buckets: Sequence[int] | None, num_patches: int) -> tuple[int, ...]:
    """Return retained counts ascending, all tokens among them."""
    if buckets is None:
        return default_retained_buckets(num_patches)
    if not all(1 <= count <= num_patches for count in buckets):
        raise ConfigError(
            "length buckets",
            got=list(buckets),
            expected=f"counts from 1 to {num_patches}, the model's visual tokens",
            fix="take those that `lightvla bench --suggest-buckets` suggests",
        )
    return tuple(sorted({*buckets, num_patches}))


def _identity(manifest: Manifest, inline_bytes: int) -> dict[str, Any]:
    """Return everything that the files of the parts depend on."""
    return {
        "created_by": manifest.created_by,
        "checkpoint_hash": manifest.checkpoint_hash,
        "precision": manifest.precision,
        "model": asdict(manifest.model),
        "max_prompt_tokens": manifest.policy.max_prompt_tokens,
        "inline_bytes": inline_bytes,
    }


def _stored(model: LightVla | StoredModel) -> StoredModel:
    if isinstance(model, StoredModel):
        return model
    return StoredModel(config=model.config, weights=model.state_dict())


def _dtype(precision: str) -> torch.dtype:
    if precision not in PRECISIONS:
        raise ConfigError(
            "precision",
            got=repr(precision),
            expected=f"one of {list(PRECISIONS)}",
            fix="choose another --precision",
        )
    dtype: torch.dtype = getattr(torch, precision)
    return dtype


def _silent(what: str, done: int, total: int) -> None:
    """Report nothing."""
