"""The manifest of an engine bundle: `manifest.json`, which says what the files beside it are.

engines/<name>/
    manifest.json    schema version, sizes, policy (statistics, prompt), parts with their hashes
    prompt.onnx      input_ids -> prompt_tokens, prompt_keys       once per instruction
    vision.onnx      pixel_values -> patches
    pruner.onnx      patches, prompt_keys, proprio -> order, count     learned queries read only patches
    decoder.onnx     patches, retained indices, prompt_tokens, proprio -> normalized_actions
    tokenizer.json   unless the manifest says null
    plans/<target>/  TensorRT plans of the parts, built for one kind of GPU; never shipped

Prompts and retained indices may be padded behind their true lengths, which are inputs of their own.
Pixels, proprio, prompt keys and actions are float32 whatever the precision; patches and prompt tokens
have the precision of the weights and stay on the device.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from lightvla_ros.core.errors import BundleError, LightVlaError
from lightvla_ros.core.policy_config import PolicyConfig
from lightvla_ros.model.config import ModelConfig, PrunerConfig, VisionTowerConfig
from lightvla_ros.model.policy_config import check_policy_fits

MANIFEST_NAME = "manifest.json"
SCHEMA_VERSION = 2
PARTS = ("prompt", "vision", "pruner", "decoder")
PRECISIONS = ("float32", "bfloat16", "float16")
EXPORT_AGAIN = "export the checkpoint again with `lightvla export`"

# Hashing 1 GB takes about a second; bigger files are checked by size only.
_MAX_HASHED_BYTES = 1 << 30

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """One input or output of a part; a dynamic axis of `shape` is its name."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PartFile:
    """One file of a part, with what it must weigh and hash to."""

    name: str
    num_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One ONNX graph: its file first, then external weights where it has any."""

    files: tuple[PartFile, ...]
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a bundle holds.

    Attributes:
        schema_version: layout of this file.
        created_by: package and version that wrote it.
        checkpoint_hash: sha256 over names, shapes and float32 values of the weights.
        precision: of the weights in the parts, one of `PRECISIONS`.
        quantization: weight-only scheme on top of the precision, or None.
        model: sizes of the network, the row slice of the head among them.
        policy: preprocessing, prompt, statistics.
        parts: part name -> what it is.
        length_buckets: retained counts an engine with static shapes is built for, ascending, up to N.
        prompt_buckets: likewise prompt tokens (BOS not counted), up to the longest prompt allowed.
        runtime: backend name -> options that were measured to serve this bundle best.
        tokenizer: file name, or None where the bundle takes token ids only.
        notes: free text and numbers: how it was trained, how it did.
    """

    schema_version: int = SCHEMA_VERSION
    created_by: str
    checkpoint_hash: str
    precision: str
    quantization: str | None = None
    model: ModelConfig
    policy: PolicyConfig
    parts: Mapping[str, Part]
    length_buckets: tuple[int, ...]
    prompt_buckets: tuple[int, ...]
    tokenizer: str | None
    runtime: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, directory: Path) -> Manifest:
        """Read `manifest.json` of a bundle; does not look at the parts.

        Raises:
            BundleError: it is missing, not JSON, of another schema version, or its fields are wrong.
        """
        path = directory / MANIFEST_NAME
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise BundleError(
                str(path), got="no such file", expected="an engine bundle", fix=EXPORT_AGAIN
            ) from None
        except ValueError as e:
            raise BundleError(
                str(path), got=f"invalid JSON ({e})", expected="a JSON object", fix=EXPORT_AGAIN
            ) from e
        return cls.from_mapping(content, source=str(path))

    @classmethod
    def from_mapping(cls, content: Any, source: str = MANIFEST_NAME) -> Manifest:
        """Read what `to_mapping` gives; `source` is what messages call it."""
        version = content.get("schema_version") if isinstance(content, Mapping) else None
        if version != SCHEMA_VERSION:
            raise BundleError(
                f"{source}: schema_version",
                got=version,
                expected=str(SCHEMA_VERSION),
                fix=f"{EXPORT_AGAIN}, or install the version of lightvla_ros that wrote the bundle",
            )
        try:
            manifest = _strict(cls, {**content, **_typed_fields(content)})
            _check_values(manifest)
            check_policy_fits(manifest.policy, manifest.model)
        except (KeyError, TypeError, ValueError, AttributeError, LightVlaError) as e:
            raise BundleError(source, got=f"{type(e).__name__}: {e}", fix=EXPORT_AGAIN) from e
        return manifest

    def to_mapping(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            **{f.name: getattr(self, f.name) for f in fields(self)},
            "model": asdict(self.model),
            "policy": self.policy.to_mapping(),
            "parts": {name: asdict(part) for name, part in self.parts.items()},
            "runtime": {name: dict(options) for name, options in self.runtime.items()},
            "notes": dict(self.notes),
        }

    def write(self, directory: Path) -> None:
        """Write `manifest.json`."""
        text = json.dumps(self.to_mapping(), indent=1, ensure_ascii=False)
        (directory / MANIFEST_NAME).write_text(text + "\n", encoding="utf-8")

    @property
    def content_hash(self) -> str:
        """sha256 over weights and graphs: what is built from a bundle belongs to exactly this content."""
        digest = hashlib.sha256(self.checkpoint_hash.encode())
        for name in PARTS:
            for file in self.parts[name].files:
                digest.update(f"{name} {file.num_bytes} {file.sha256}\n".encode())
        return digest.hexdigest()

    def part_path(self, directory: Path, part: str) -> Path:
        """Return the ONNX file of a part."""
        return directory / self.parts[part].files[0].name

    def check_files(self, directory: Path) -> None:
        """Compare every file of the bundle with the manifest.

        Raises:
            BundleError: a file is missing, truncated or of another content.
        """
        for part in self.parts.values():
            for file in part.files:
                check_file(
                    directory / file.name,
                    num_bytes=file.num_bytes,
                    sha256=file.sha256,
                    source=MANIFEST_NAME,
                    fix=f"copy the bundle again, or {EXPORT_AGAIN}",
                )


def describe_file(path: Path) -> PartFile:
    """Weigh and hash a file."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return PartFile(name=path.name, num_bytes=path.stat().st_size, sha256=digest.hexdigest())


def check_file(path: Path, *, num_bytes: int, sha256: str, source: str, fix: str) -> None:
    """Compare a file with what was written of it.

    Args:
        path: the file.
        num_bytes: what it must weigh.
        sha256: what it must hash to.
        source: name of the file that says so, for the message.
        fix: likewise.

    Raises:
        BundleError: it is missing, truncated or of another content.
    """
    size = path.stat().st_size if path.is_file() else None
    if size != num_bytes:
        got, expected = "no such file" if size is None else f"{size} bytes", f"{num_bytes} bytes"
    elif size <= _MAX_HASHED_BYTES and (digest := describe_file(path).sha256) != sha256:
        got, expected = f"sha256 {digest[:12]}...", f"{sha256[:12]}... of {source}"
    else:
        return
    raise BundleError(str(path), got=got, expected=expected, fix=fix)


def _typed_fields(content: Mapping[str, Any]) -> dict[str, Any]:
    parts = {name: part_from_mapping(value) for name, value in content["parts"].items()}
    if set(parts) != set(PARTS):
        raise ValueError(f"parts {sorted(parts)}, expected {sorted(PARTS)}")
    return {
        "model": _model(content["model"]),
        "policy": PolicyConfig.from_mapping(content["policy"]),
        "parts": parts,
        "length_buckets": _buckets(content["length_buckets"]),
        "prompt_buckets": _buckets(content["prompt_buckets"]),
        "tokenizer": None if content["tokenizer"] is None else _plain_name(content["tokenizer"]),
    }


def _check_values(manifest: Manifest) -> None:
    if manifest.precision not in PRECISIONS:
        raise ValueError(f"precision {manifest.precision!r}, expected one of {list(PRECISIONS)}")
    longest = manifest.policy.max_prompt_tokens - 1
    for name, last in (("length_buckets", manifest.model.num_patches), ("prompt_buckets", longest)):
        if getattr(manifest, name)[-1] != last:
            raise ValueError(f"{name} end at {getattr(manifest, name)[-1]}, expected {last}")


def _buckets(content: Sequence[int]) -> tuple[int, ...]:
    buckets = tuple(int(size) for size in content)
    if not buckets or buckets[0] < 1 or list(buckets) != sorted(set(buckets)):
        raise ValueError(f"buckets {buckets} are not ascending counts from 1 on")
    return buckets


def _model(content: Mapping[str, Any]) -> ModelConfig:
    towers = {name: _strict(VisionTowerConfig, tower) for name, tower in content["towers"].items()}
    # Bundles from before there was a choice have none.
    pruner = _strict(PrunerConfig, content["pruner"]) if "pruner" in content else PrunerConfig()
    return _strict(ModelConfig, {**content, "towers": towers, "pruner": pruner})


def part_from_mapping(content: Mapping[str, Any]) -> Part:
    """Read what `asdict` gives of a part; raises KeyError, TypeError, ValueError or AttributeError."""
    files = tuple(_strict(PartFile, {**file, "name": _plain_name(file["name"])}) for file in content["files"])
    if not files:
        raise ValueError("a part without files")
    return _strict(
        Part,
        {
            **content,
            "files": files,
            "inputs": _specs(content["inputs"]),
            "outputs": _specs(content["outputs"]),
        },
    )


def _specs(content: Sequence[Mapping[str, Any]]) -> tuple[TensorSpec, ...]:
    return tuple(_strict(TensorSpec, {**spec, "shape": tuple(spec["shape"])}) for spec in content)


def _strict(kind: type[_T], content: Mapping[str, Any]) -> _T:
    """Build a dataclass from exactly its fields."""
    expected = {f.name for f in fields(kind)}  # type: ignore[arg-type]  # every caller passes a dataclass
    if set(content) != expected:
        raise ValueError(f"{kind.__name__}: fields {sorted(set(content) ^ expected)} are missing or unknown")
    return kind(**content)


def _plain_name(name: str) -> str:
    # A manifest comes from elsewhere; it must not reach outside its directory.
    if not name or Path(name).name != name:
        raise ValueError(f"file name {name!r} is not a plain name")
    return name
