"""TensorRT plans of a bundle's parts on disk, and what they fit.

<bundle>/plans/<target>-<flavour>-<precision>/
    plan.json           fingerprint, profiles, files with their hashes
    prompt.plan ...     one per part
    verification.json   once `lightvla verify` has compared it with torch
    timing.cache        kernel timings, TensorRT only

A plan runs with exactly the TensorRT that built it, on the kind of GPU it was built for. Nothing here needs
TensorRT: the node reads it before it loads anything.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lightvla_ros.backends.length_buckets import Profile
from lightvla_ros.backends.manifest import PARTS, Manifest, check_file
from lightvla_ros.core.errors import BundleError

PLAN_NAME = "plan.json"
SCHEMA_VERSION = 1
_PLANS = "plans"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprint:
    """What a plan set was built from and for; two sets with the same one are interchangeable.

    Attributes:
        flavour: "tensorrt" or "tensorrt-rtx".
        tensorrt_version: of the library.
        cuda_version: major version the library was built for. For the record only: TensorRT itself knows
            which drivers it runs with.
        target: compute capability, for example "sm_86".
        precision: of the weights, one of the manifest's `PRECISIONS`.
        flags: what else the builder was told.
        bundle_hash: `Manifest.content_hash`.
    """

    flavour: str
    tensorrt_version: str
    cuda_version: str
    target: str
    precision: str
    flags: Mapping[str, Any]
    bundle_hash: str

    @property
    def digest(self) -> str:
        """sha256 over all fields."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What a machine offers to plans; the fields mean what they do in `Fingerprint`."""

    flavour: str
    tensorrt_version: str
    cuda_version: str
    target: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanPart:
    """The plan of one part.

    Attributes:
        file: name in the plan set's directory.
        num_bytes: size of the file.
        sha256: of the file.
        num_layers: of the parsed network.
        seconds: that parsing and building took.
    """

    file: str
    num_bytes: int
    sha256: str
    num_layers: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanSet:
    """The plans of all parts for one kind of GPU.

    Attributes:
        directory: where they are.
        fingerprint: what they fit.
        parts: part name -> plan.
        profiles: axis ("retained", "prompt") -> the ranges it was built for.
        created_by: package and version that built it.
    """

    directory: Path
    fingerprint: Fingerprint
    parts: Mapping[str, PlanPart]
    profiles: Mapping[str, tuple[Profile, ...]] = field(default_factory=dict)
    created_by: str = ""

    @classmethod
    def read(cls, directory: Path) -> PlanSet:
        """Read `plan.json`; does not look at the plans.

        Raises:
            BundleError: it is missing, not JSON, of another schema version, or its fields are wrong.
        """
        path = directory / PLAN_NAME
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise _unreadable(path, "no such file", "a plan set") from None
        except ValueError as e:
            raise _unreadable(path, f"invalid JSON ({e})", "a JSON object") from e
        version = content.get("schema_version") if isinstance(content, dict) else None
        if version != SCHEMA_VERSION:
            raise _unreadable(path, f"schema_version {version}", f"schema_version {SCHEMA_VERSION}")
        try:
            return _plan_set(directory, content)
        except (KeyError, TypeError, ValueError, AttributeError) as e:
            raise _unreadable(path, f"{type(e).__name__}: {e}", "what `lightvla build` wrote") from e

    def write(self) -> None:
        """Write `plan.json` into `directory`; the last thing to do, because it makes the set count."""
        content = {
            "schema_version": SCHEMA_VERSION,
            "created_by": self.created_by,
            "fingerprint": asdict(self.fingerprint),
            "parts": {name: asdict(part) for name, part in self.parts.items()},
            "profiles": {axis: [asdict(p) for p in ranges] for axis, ranges in self.profiles.items()},
        }
        path = self.directory / PLAN_NAME
        path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

    @property
    def seconds(self) -> float:
        """What building all parts took."""
        return sum(part.seconds for part in self.parts.values())

    @property
    def files(self) -> list[Path]:
        """The plans, in the order of the parts."""
        return [self.directory / self.parts[name].file for name in PARTS]

    def check_files(self) -> None:
        """Compare the plans with `plan.json`.

        Raises:
            BundleError: a file is missing, truncated or of another content.
        """
        for part in self.parts.values():
            check_file(
                self.directory / part.file,
                num_bytes=part.num_bytes,
                sha256=part.sha256,
                source=PLAN_NAME,
                fix=f"build it again: `{self.build_command()}`",
            )

    def check_bundle(self, manifest: Manifest) -> None:
        """Check that the plans were built from this bundle.

        Raises:
            BundleError: they were built from other weights or graphs.
        """
        if self.fingerprint.bundle_hash != manifest.content_hash:
            raise BundleError(
                f"plans in {self.directory}",
                got=f"built from a bundle with hash {self.fingerprint.bundle_hash[:12]}...",
                expected=f"{manifest.content_hash[:12]}..., the bundle's as it is now",
                fix=f"build them again: `{self.build_command()}`",
            )

    def check_machine(self, machine: Machine) -> None:
        """Check that this machine runs the plans.

        Raises:
            BundleError: they belong to another library, version of it, or kind of GPU.
        """
        for name, what in _MUST_MATCH.items():
            built, present = getattr(self.fingerprint, name), getattr(machine, name)
            if built != present:
                raise BundleError(
                    f"{what} of the plans in {self.directory}",
                    got=f"{built}",
                    expected=f"{present}, this machine's",
                    fix=f"build plans for this machine: `{self.build_command(machine)}`",
                )

    def build_command(self, machine: Machine | None = None) -> str:
        """Return the command that builds this set again, for `machine` where one is given."""
        wanted = machine or self.fingerprint
        return (
            f"lightvla build {_bundle_of(self.directory)} --backend {wanted.flavour} "
            f"--precision {self.fingerprint.precision} --target {wanted.target}"
        )


_MUST_MATCH = {"flavour": "library", "tensorrt_version": "TensorRT version", "target": "GPU"}


def plan_sets(bundle_directory: Path) -> list[Path]:
    """Return the directories of a bundle's finished plan sets, sorted."""
    found = (path.parent for path in (bundle_directory / _PLANS).glob(f"*/{PLAN_NAME}"))
    # What is being built is hidden.
    return sorted(directory for directory in found if not directory.name.startswith("."))


def default_plan_directory(bundle_directory: Path, fingerprint: Fingerprint) -> Path:
    """Return where a plan set lives unless it is told otherwise."""
    name = f"{fingerprint.target}-{fingerprint.flavour}-{fingerprint.precision}"
    return bundle_directory / _PLANS / name


def _plan_set(directory: Path, content: Mapping[str, Any]) -> PlanSet:
    parts = {name: PlanPart(**part) for name, part in content["parts"].items()}
    if set(parts) != set(PARTS):
        raise ValueError(f"parts {sorted(parts)}, expected {sorted(PARTS)}")
    for part in parts.values():
        # The file comes from elsewhere; it must not reach outside its directory.
        if not part.file or Path(part.file).name != part.file:
            raise ValueError(f"file name {part.file!r} is not a plain name")
    return PlanSet(
        directory=directory,
        fingerprint=Fingerprint(**content["fingerprint"]),
        parts=parts,
        profiles={
            axis: tuple(Profile(**profile) for profile in ranges)
            for axis, ranges in content["profiles"].items()
        },
        created_by=content["created_by"],
    )


def _unreadable(path: Path, got: str, expected: str) -> BundleError:
    return BundleError(
        str(path),
        got=got,
        expected=expected,
        fix=f"build the plans again: `lightvla build {_bundle_of(path.parent)} --force`",
    )


def _bundle_of(directory: Path) -> str:
    """Name the bundle a plan set lies in; one built with --out may lie anywhere."""
    return str(directory.parent.parent) if directory.parent.name == _PLANS else "BUNDLE"
