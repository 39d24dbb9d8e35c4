"""What `lightvla doctor` says about a bundle, its fingerprint and its plans."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from lightvla_ros.backends.availability import Availability, available_gpu
from lightvla_ros.backends.loading import find_directory
from lightvla_ros.backends.manifest import MANIFEST_NAME, Manifest
from lightvla_ros.backends.tensorrt.plan import PlanSet, plan_sets
from lightvla_ros.backends.verification import require_verified
from lightvla_ros.commands._finding import Finding, Level
from lightvla_ros.commands._machine_findings import available_memory
from lightvla_ros.core.errors import LightVlaError

# ONNX Runtime keeps the weights it read and a copy laid out for its kernels.
_MEMORY_FACTOR = 2
# Plans and what building them writes meanwhile.
_DISK_FACTOR = 2
# Enough of a fingerprint to compare by eye.
_DIGITS = 12


def bundle_findings(name: str, backends: Mapping[str, Availability]) -> Iterator[Finding]:
    """Look at a bundle or a checkpoint: whole, fits this machine, its plans verified.

    Args:
        name: of an installed bundle, or a directory.
        backends: name -> what there is of it.
    """
    try:
        directory = find_directory(name)
        if not (directory / MANIFEST_NAME).is_file():
            yield _checkpoint(directory, backends["torch"])
            return
        manifest = Manifest.read(directory)
        manifest.check_files(directory)
    except LightVlaError as e:
        yield _broken("error", e)
        return
    yield Finding(section="bundle", level="ok", text=f"{directory}: {_describe(manifest)}, files are whole")
    if manifest.tokenizer is None or not (directory / manifest.tokenizer).is_file():
        yield Finding(
            section="bundle",
            level="warning",
            text="no tokenizer: it takes token ids, not instructions",
            fix="export again from a checkpoint with a tokenizer.json",
        )
    yield from _room(manifest)
    yield from _disk(manifest, directory, backends)
    yield from _precision(manifest)
    for plans in plan_sets(directory):
        yield plans_finding(plans, manifest, backends)


def _checkpoint(directory: Path, torch: Availability) -> Finding:
    text = f"{directory}: a checkpoint, which runs with torch only"
    level: Level = "ok" if torch.usable else "error"
    return Finding(section="bundle", level=level, text=text, fix=torch.fix)


def _room(manifest: Manifest) -> Iterator[Finding]:
    need = _MEMORY_FACTOR * _num_bytes(manifest)
    if need > (free := available_memory()):
        yield Finding(
            section="bundle",
            level="warning",
            text=f"needs about {need / 1e9:.1f} GB of memory on the CPU, {free / 1e9:.1f} GB are free",
            fix="close other programs, or run it on a GPU",
        )


def _disk(manifest: Manifest, directory: Path, backends: Mapping[str, Availability]) -> Iterator[Finding]:
    """Whether plans have room, where some can be built and run."""
    can_build = any(backends[name].usable for name in ("tensorrt", "tensorrt-rtx") if name in backends)
    need, free = _DISK_FACTOR * _num_bytes(manifest), shutil.disk_usage(directory).free
    if can_build and need > free:
        yield Finding(
            section="bundle",
            level="warning",
            text=f"building plans needs about {need / 1e9:.1f} GB of disk, {free / 1e9:.1f} GB are free",
            fix="make room, or build elsewhere with --out",
        )


def _precision(manifest: Manifest) -> Iterator[Finding]:
    if manifest.precision == "bfloat16" and not available_gpu().usable:
        yield Finding(
            section="bundle",
            level="warning",
            text="is in bfloat16, which ONNX Runtime does not compute on a CPU",
            fix="use backend 'torch', export it with --precision float32, or run it on a GPU",
        )


def plans_finding(directory: Path, manifest: Manifest, backends: Mapping[str, Availability]) -> Finding:
    """Look at one plan set: whole, for this machine, verified."""
    try:
        plan_set = PlanSet.read(directory)
        plan_set.check_bundle(manifest)
        plan_set.check_files()
    except LightVlaError as e:
        return _broken("warning", e)
    fingerprint, text = plan_set.fingerprint, f"plans {directory.name}"
    backend = backends.get(fingerprint.flavour)
    if backend is None or not backend.usable:
        lacks = backend.lacks if backend else fingerprint.flavour
        return Finding(section="bundle", level="note", text=f"{text}: for machines with {lacks}")
    try:
        from lightvla_ros.backends.tensorrt.runtime import machine

        plan_set.check_machine(machine(fingerprint.flavour))
    except LightVlaError as e:
        return Finding(section="bundle", level="note", text=f"{text}: {e.what} is {e.got}", fix=e.fix)
    try:
        require_verified(directory, fingerprint.digest)
    except LightVlaError as e:
        return _broken("warning", e)
    return Finding(section="bundle", level="ok", text=f"{text}: fit this machine, verified")


def _broken(level: Level, error: LightVlaError) -> Finding:
    expected = f", expected {error.expected}" if error.expected else ""
    return Finding(section="bundle", level=level, text=f"{error.what}: {error.got}{expected}", fix=error.fix)


def _describe(manifest: Manifest) -> str:
    kind = manifest.precision if manifest.quantization is None else manifest.quantization
    cameras = ", ".join(manifest.policy.camera_names)
    tokens = f"{manifest.model.num_patches} visual tokens of {cameras}"
    weights, content = manifest.checkpoint_hash[:_DIGITS], manifest.content_hash[:_DIGITS]
    return f"{kind}, {tokens}; fingerprint {content}, of the weights {weights}"


def _num_bytes(manifest: Manifest) -> int:
    return sum(file.num_bytes for part in manifest.parts.values() for file in part.files)
