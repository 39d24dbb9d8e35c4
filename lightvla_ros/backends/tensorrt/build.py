"""Builds the TensorRT plan sets of a bundle: ahead of time, never inside the node.

TensorRT-RTX builds for each of its targets without a GPU; TensorRT builds for the GPU it runs on.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lightvla_ros import __version__
from lightvla_ros.backends.length_buckets import Profile, bucket_for, retained_profiles
from lightvla_ros.backends.manifest import PARTS, PRECISIONS, Manifest, TensorSpec, describe_file
from lightvla_ros.backends.staging import staged
from lightvla_ros.backends.tensorrt.api import Flavour, TensorRt, load
from lightvla_ros.backends.tensorrt.network import FLAGS, AxisRanges, PlanBuilder
from lightvla_ros.backends.tensorrt.plan import (
    PLAN_NAME,
    Fingerprint,
    PlanPart,
    PlanSet,
    default_plan_directory,
)
from lightvla_ros.backends.tensorrt.targets import resolve_target
from lightvla_ros.core.errors import BundleError, ConfigError, EngineError

_TIMING_CACHE = "timing.cache"
# The template of a prompt has some 20 tokens, an instruction of LIBERO 5 to 20 more.
_TYPICAL_PROMPT = 32

# Called with what is being done, how much of it is done, and how much there is.
Progress = Callable[[str, int, int], None]

Profiles = Mapping[str, tuple[Profile, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Order:
    """One plan set to be built."""

    directory: Path
    fingerprint: Fingerprint
    profiles: Profiles


def build_plans(
    bundle_directory: Path,
    *,
    flavour: Flavour,
    targets: Sequence[str],
    precision: str | None = None,
    out: Path | None = None,
    workspace_bytes: int | None = None,
    progress: Progress | None = None,
    overwrite: bool = False,
) -> list[PlanSet]:
    """Build a plan set per target; each appears whole or not at all, and replaces an older one.

    A set that is there already, undamaged and with the same fingerprint and profiles, is kept as it is.

    Args:
        bundle_directory: the bundle.
        flavour: library that builds and will run the plans.
        targets: GPUs to build for, as "sm_86", or "current" for the one in this machine.
        precision: of the weights; None takes the bundle's. Another one needs torch.
        out: directory of the plan set, or with several targets of the sets; None puts them into the bundle.
        workspace_bytes: most device memory a kernel may use as scratch; None sets no limit.
        progress: called while parts are converted to another precision, and before each is built.
        overwrite: build even what is there already.

    Returns:
        One plan set per target, in order.

    Raises:
        BundleError: the bundle is damaged or quantised, or `out` is in use or cannot be written.
        ConfigError: a target or the precision is unknown.
        EngineError: the library is missing, cannot build for a target, or fails.
    """
    manifest = Manifest.read(bundle_directory)
    _check_buildable(bundle_directory, manifest, precision)
    precision = precision or manifest.precision
    api = load(flavour)
    flags = {**FLAGS, "workspace_bytes": workspace_bytes}
    orders = [
        _order(bundle_directory, manifest, api, target, precision=precision, flags=flags)
        for target in dict.fromkeys(resolve_target(target, api) for target in targets)
    ]
    if out is not None:
        orders = [_sent_to(out, order, several=len(orders) > 1) for order in orders]
    kept = {} if overwrite else {order.directory: _finished(order) for order in orders}
    if all(kept.get(order.directory) for order in orders):
        return [plan_set for plan_set in kept.values() if plan_set]
    manifest.check_files(bundle_directory)
    with _parts(bundle_directory, manifest, precision, progress) as paths:
        return [
            kept.get(order.directory) or _build(order, api, manifest, paths, progress) for order in orders
        ]


def profiles_of(manifest: Manifest) -> Profiles:
    """Return the ranges plans are built for: retained tokens by the bundle's buckets, one for prompts."""
    longest = manifest.prompt_buckets[-1]
    typical = bucket_for(min(_TYPICAL_PROMPT, longest), manifest.prompt_buckets, "typical prompt")
    return {
        "retained": retained_profiles(manifest.length_buckets),
        "prompt": (Profile(min=1, opt=typical, max=longest),),
    }


def _check_buildable(directory: Path, manifest: Manifest, precision: str | None) -> None:
    if precision not in (None, *PRECISIONS):
        raise ConfigError(
            "precision",
            got=repr(precision),
            expected=f"one of {list(PRECISIONS)}",
            fix="choose another --precision, or leave it out for the bundle's",
        )
    if manifest.quantization is not None:
        raise BundleError(
            f"plans of {directory}",
            got=f"a bundle quantised to {manifest.quantization} for ONNX Runtime",
            expected="a bundle that is not quantised",
            fix="export the checkpoint without --quant and build that bundle",
        )


def _order(
    bundle: Path, manifest: Manifest, api: TensorRt, target: str, *, precision: str, flags: Mapping[str, Any]
) -> _Order:
    fingerprint = Fingerprint(
        flavour=api.flavour,
        tensorrt_version=api.version,
        cuda_version=api.cuda_version(),
        target=target,
        precision=precision,
        flags=flags,
        bundle_hash=manifest.content_hash,
    )
    return _Order(
        directory=default_plan_directory(bundle, fingerprint),
        fingerprint=fingerprint,
        profiles=profiles_of(manifest),
    )


def _sent_to(out: Path, order: _Order, *, several: bool) -> _Order:
    directory = out / order.directory.name if several else out
    if directory.exists() and not (directory / PLAN_NAME).is_file() and any(directory.iterdir()):
        raise BundleError(
            str(directory),
            got="something else is there",
            expected="a new or empty directory, or a plan set, which is replaced",
            fix="choose another --out",
        )
    return replace(order, directory=directory)


def _finished(order: _Order) -> PlanSet | None:
    """Return the plan set at the order's place if it is the one that was ordered."""
    try:
        plan_set = PlanSet.read(order.directory)
        plan_set.check_files()
    except BundleError:
        return None
    same = plan_set.fingerprint == order.fingerprint and plan_set.profiles == order.profiles
    return plan_set if same else None


@contextmanager
def _parts(
    directory: Path, manifest: Manifest, precision: str, progress: Progress | None
) -> Iterator[Mapping[str, Path]]:
    """Yield the ONNX files in a precision; those in another than the bundle's exist for the time only."""
    if precision == manifest.precision:
        yield {name: manifest.part_path(directory, name) for name in PARTS}
        return
    try:
        from lightvla_ros.backends.bundle_model import open_bundle
        from lightvla_ros.backends.export import export_bundle
    except ImportError as e:
        raise EngineError(
            f"plans in {precision} of a bundle in {manifest.precision}",
            got=str(e),
            expected="torch, which writes the parts in another precision",
            fix="pip install 'lightvla_ros[export]', or build a bundle that was exported in that precision",
        ) from e
    with tempfile.TemporaryDirectory(prefix="lightvla-parts-") as scratch:
        converted = Path(scratch) / "bundle"
        model = open_bundle(directory, manifest)
        parts = export_bundle(model, manifest.policy, converted, precision=precision, progress=progress)
        yield {name: parts.part_path(converted, name) for name in PARTS}


def _build(
    order: _Order, api: TensorRt, manifest: Manifest, paths: Mapping[str, Path], progress: Progress | None
) -> PlanSet:
    fingerprint = order.fingerprint
    with staged(order.directory) as staging:
        builder = PlanBuilder(
            api,
            fingerprint.target,
            timing_cache=_inherited_timings(order.directory, staging, api),
            workspace_bytes=fingerprint.flags["workspace_bytes"],
        )
        parts = {}
        for number, name in enumerate(PARTS):
            if progress is not None:
                progress(f"building {name} for {fingerprint.target}", number, len(PARTS))
            inputs = manifest.parts[name].inputs
            ranges = _axis_ranges(inputs, order.profiles)
            parts[name] = _build_part(builder, paths[name], inputs, ranges, staging / f"{name}.plan")
        plan_set = PlanSet(
            directory=staging,
            fingerprint=fingerprint,
            parts=parts,
            profiles=order.profiles,
            created_by=f"lightvla_ros {__version__}",
        )
        plan_set.write()
    return replace(plan_set, directory=order.directory)


def _build_part(
    builder: PlanBuilder,
    source: Path,
    inputs: Sequence[TensorSpec],
    profiles: Sequence[AxisRanges],
    path: Path,
) -> PlanPart:
    start = time.monotonic()
    plan, num_layers = builder.build(source, inputs, profiles)
    seconds = time.monotonic() - start
    path.write_bytes(plan)
    file = describe_file(path)
    return PlanPart(
        file=file.name,
        num_bytes=file.num_bytes,
        sha256=file.sha256,
        num_layers=num_layers,
        seconds=round(seconds, 3),
    )


def _inherited_timings(old: Path, staging: Path, api: TensorRt) -> Path | None:
    """Bring the timing cache of the set that is being replaced; TensorRT-RTX times nothing when it builds."""
    if api.flavour == "tensorrt-rtx":
        return None
    if (old / _TIMING_CACHE).is_file():
        shutil.copy(old / _TIMING_CACHE, staging)
    return staging / _TIMING_CACHE


def _axis_ranges(inputs: Sequence[TensorSpec], profiles: Profiles) -> list[AxisRanges]:
    """Return the ranges of every axis, once per profile a part needs."""
    (prompt,) = profiles["prompt"]
    bos = 1  # the ids of a prompt begin with BOS, which is not a prompt token
    ids = Profile(min=prompt.min + bos, opt=prompt.opt + bos, max=prompt.max + bos)
    names = {axis for spec in inputs for axis in spec.shape if isinstance(axis, str)}
    retained = profiles["retained"] if "retained" in names else profiles["retained"][-1:]
    return [{"prompt": prompt, "ids": ids, "retained": one} for one in retained]
