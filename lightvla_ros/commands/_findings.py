"""What `lightvla doctor` looks at: each finding says what is so, how bad that is, and how to mend it."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module, metadata
from pathlib import Path
from typing import Literal

import lightvla_ros
from lightvla_ros.app import find_directory
from lightvla_ros.backends.availability import Availability, available_backends, available_gpu
from lightvla_ros.backends.manifest import MANIFEST_NAME, Manifest
from lightvla_ros.backends.tensorrt.plan import PlanSet, plan_sets
from lightvla_ros.backends.verification import require_verified
from lightvla_ros.core.errors import LightVlaError

# ok: works. note: a fact, nothing to do unless wanted. warning: something does not work. error: nothing does.
Level = Literal["ok", "note", "warning", "error"]

# ONNX Runtime keeps the weights it read and a copy laid out for its kernels.
_MEMORY_FACTOR = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        section: what it belongs to: package, ROS, machine, backends or bundle.
        level: how bad it is.
        text: what is so.
        fix: what to do about it, a command where there is one; empty where nothing is to be done.
    """

    section: str
    level: Level
    text: str
    fix: str = ""


def findings(bundle: str) -> Iterator[Finding]:
    """Look at everything, and at one bundle: a directory or a name."""
    backends = available_backends()
    yield from _package()
    yield from _ros()
    yield from _machine()
    yield from (_backend(backend) for backend in backends)
    yield from _bundle(bundle, {backend.name: backend for backend in backends})


def _package() -> Iterator[Finding]:
    python = platform.python_version()
    yield Finding(
        section="package",
        level="ok",
        text=f"lightvla_ros {lightvla_ros.__version__}, Python {python} on {platform.machine()}",
    )


def _ros() -> Iterator[Finding]:
    try:
        rmw = import_module("rclpy").get_rmw_implementation_identifier()
    except Exception as e:  # noqa: BLE001 (a ROS that was set up for another Python fails in many ways)
        yield Finding(
            section="ROS",
            level="warning",
            text=f"rclpy cannot be used ({e}): policies load and verify, but no node runs",
            fix="source /opt/ros/<distribution>/setup.bash, or pip install 'lightvla_ros[ros]'",
        )
        return
    distribution = os.environ.get("ROS_DISTRO") or f"wheels of rclpy {_version('rclpy')}"
    domain = os.environ.get("ROS_DOMAIN_ID", "0")
    yield Finding(section="ROS", level="ok", text=f"{distribution}, {rmw}, domain {domain}")


def _machine() -> Iterator[Finding]:
    cores = len(os.sched_getaffinity(0))
    memory = f"{available_memory() / 1e9:.1f} GB of memory free"
    yield Finding(section="machine", level="ok", text=f"{cores} CPU cores for this process, {memory}")
    gpu = available_gpu()
    if gpu.usable:
        yield Finding(section="machine", level="ok", text=gpu.found)
    elif gpu.found:
        yield Finding(
            section="machine", level="warning", text=f"{gpu.found} without {gpu.lacks}", fix=gpu.fix
        )
    else:
        yield Finding(section="machine", level="note", text="no NVIDIA GPU: policies run on the CPU")


def _backend(backend: Availability) -> Finding:
    if backend.usable:
        return Finding(section="backends", level="ok", text=f"{backend.name}: {backend.found}")
    found = f"{backend.found}, " if backend.found else ""
    # The one backend that every installation has: without it the package is broken.
    level: Level = "error" if backend.name == "onnxruntime" else "note"
    text = f"{backend.name}: {found}lacks {backend.lacks}"
    return Finding(section="backends", level=level, text=text, fix=backend.fix)


def _bundle(name: str, backends: dict[str, Availability]) -> Iterator[Finding]:
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
    yield from _precision(manifest)
    for plans in plan_sets(directory):
        yield plans_finding(plans, manifest, backends)


def _checkpoint(directory: Path, torch: Availability) -> Finding:
    text = f"{directory}: a checkpoint, which runs with torch only"
    level: Level = "ok" if torch.usable else "error"
    return Finding(section="bundle", level=level, text=text, fix=torch.fix)


def _room(manifest: Manifest) -> Iterator[Finding]:
    need = _MEMORY_FACTOR * sum(file.num_bytes for part in manifest.parts.values() for file in part.files)
    if need > (free := available_memory()):
        yield Finding(
            section="bundle",
            level="warning",
            text=f"needs about {need / 1e9:.1f} GB of memory on the CPU, {free / 1e9:.1f} GB are free",
            fix="close other programs, or run it on a GPU",
        )


def _precision(manifest: Manifest) -> Iterator[Finding]:
    if manifest.precision == "bfloat16" and not available_gpu().usable:
        yield Finding(
            section="bundle",
            level="warning",
            text="is in bfloat16, which ONNX Runtime does not compute on a CPU",
            fix="use backend 'torch', export it with --precision float32, or run it on a GPU",
        )


def plans_finding(directory: Path, manifest: Manifest, backends: dict[str, Availability]) -> Finding:
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
    return f"{kind}, {manifest.model.num_patches} visual tokens of {cameras}"


def available_memory() -> int:
    """Return the bytes of memory a new process can have."""
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        name, _, amount = line.partition(":")
        if name == "MemAvailable":
            return int(amount.split()[0]) * 1024
    return 0


def _version(distribution: str) -> str:
    for name in (distribution, f"ros-{distribution}"):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return "unknown"
