"""`lightvla export`: a checkpoint, or a bundle in another precision, becomes an engine bundle."""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightvla_ros.commands._arguments import PRECISIONS

if TYPE_CHECKING:
    from lightvla_ros.backends.export import ExportProgress
    from lightvla_ros.backends.manifest import Manifest
    from lightvla_ros.core.policy_config import PolicyConfig
    from lightvla_ros.model.stored_model import StoredModel

HELP = "turn a checkpoint directory into an engine bundle that runs without torch"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.add_argument(
        "source",
        help="checkpoint directory in the published layout, or a float32 bundle (a directory or a name)",
    )
    parser.add_argument("--out", type=Path, required=True, help="directory of the new bundle")
    parser.add_argument(
        "--precision",
        default="float32",
        choices=[*PRECISIONS.values(), *PRECISIONS],
        help="of the weights; norms, rotary angles and pruner scores stay in float32 (default: %(default)s)",
    )
    parser.add_argument(
        "--quant",
        metavar="SCHEME",
        help="vision and decoder weights for ONNX Runtime on CPU: int8 or int4; kept only when it verifies",
    )
    parser.add_argument("--no-verify", action="store_true", help="keep a quantised bundle that fails")
    parser.add_argument(
        "--buckets",
        type=int,
        nargs="+",
        metavar="K",
        help="retained counts that engines with static shapes are built for, as `lightvla bench "
        "--suggest-buckets` gives them (default: the source's, or finer where pruned sets usually lie)",
    )
    parser.add_argument("--statistics-key", help="data set whose statistics apply, where there are several")
    parser.add_argument(
        "--notes", type=Path, help="JSON object to keep in the manifest: how the model was made, how it did"
    )
    parser.add_argument("--force", action="store_true", help="replace a bundle that is already there")
    parser.add_argument(
        "--fresh", action="store_true", help="start over instead of going on with an interrupted export"
    )
    parser.add_argument("--json", action="store_true", help="end with one JSON object")


def run(args: argparse.Namespace) -> int:
    """Export and say what was written."""
    from lightvla_ros.backends.loading import find_directory

    source = _read_source(find_directory(args.source), args.statistics_key, args.notes)
    precision = PRECISIONS.get(args.precision, args.precision)
    with _progress_bar() as progress:
        manifest = _export(source, args, precision, progress)
    files = {file.name: file.num_bytes for part in manifest.parts.values() for file in part.files}
    for name, size in files.items():
        print(f"{name:<18} {size / 1e6:9.2f} MB")
    if manifest.tokenizer is None:
        print("the source has no tokenizer: the bundle takes token ids only")
    print(f"wrote {args.out}")
    if args.json:
        print(json.dumps({"bundle": str(args.out), "precision": precision, "files": files}))
    return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    """What is exported: a network on disk and what goes with it."""

    model: StoredModel
    policy: PolicyConfig
    tokenizer: str | None
    notes: dict[str, Any]
    length_buckets: tuple[int, ...] | None = None
    prompt_buckets: tuple[int, ...] | None = None


def _read_source(directory: Path, statistics_key: str | None, notes: Path | None) -> _Source:
    from lightvla_ros.backends.manifest import MANIFEST_NAME
    from lightvla_ros.model.config import read_json

    extra = read_json(notes) if notes else {}
    if (directory / MANIFEST_NAME).is_file():
        return _from_bundle(directory, statistics_key, extra)
    return _from_checkpoint(directory, statistics_key, extra)


def _from_bundle(directory: Path, statistics_key: str | None, notes: dict[str, Any]) -> _Source:
    from lightvla_ros.backends.bundle_model import open_bundle
    from lightvla_ros.backends.manifest import Manifest
    from lightvla_ros.core.errors import ConfigError

    manifest = Manifest.read(directory)
    if statistics_key not in (None, manifest.policy.statistics_key):
        raise ConfigError(
            "--statistics-key",
            got=repr(statistics_key),
            expected=f"'{manifest.policy.statistics_key}', the only statistics in {directory.name}",
            fix="export the checkpoint",
        )
    name = manifest.tokenizer
    return _Source(
        model=open_bundle(directory, manifest),
        policy=manifest.policy,
        tokenizer=None if name is None else (directory / name).read_text(encoding="utf-8"),
        notes={**manifest.notes, **notes},
        length_buckets=manifest.length_buckets,
        prompt_buckets=manifest.prompt_buckets,
    )


def _from_checkpoint(directory: Path, statistics_key: str | None, notes: dict[str, Any]) -> _Source:
    from lightvla_ros.backends.tokenizer import read_tokenizer
    from lightvla_ros.model.checkpoint import open_checkpoint
    from lightvla_ros.model.config import read_json
    from lightvla_ros.model.policy_config import read_policy_config

    own = read_json(directory / "lightvla.json", optional=True)
    model = open_checkpoint(directory)
    return _Source(
        model=model,
        policy=read_policy_config(directory, model.config, model.statistics, statistics_key),
        tokenizer=read_tokenizer(directory),
        notes={**{name: value for name, value in own.items() if name not in ("model", "policy")}, **notes},
    )


def _export(source: _Source, args: argparse.Namespace, precision: str, progress: ExportProgress) -> Manifest:
    from lightvla_ros.backends.export import export_bundle
    from lightvla_ros.backends.export_staging import check_target
    from lightvla_ros.backends.quantization import check_scheme, quantize_bundle
    from lightvla_ros.backends.staging import staged

    def export(directory: Path) -> Manifest:
        return export_bundle(
            source.model,
            source.policy,
            directory,
            precision=precision,
            tokenizer=source.tokenizer,
            length_buckets=args.buckets or source.length_buckets,
            prompt_buckets=source.prompt_buckets,
            notes=source.notes,
            overwrite=args.force,
            fresh=args.fresh,
            progress=progress,
        )

    if args.quant is None:
        return export(args.out)
    check_scheme(args.quant, precision)
    check_target(args.out, overwrite=args.force)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=args.out.parent, prefix=f".{args.out.name}-") as scratch:
        exact = Path(scratch) / "float32" / Path(args.source).resolve().name
        quantized = Path(scratch) / "quantized" / args.out.name
        export(exact)
        manifest = quantize_bundle(exact, quantized, args.quant)
        if not args.no_verify:
            _require_verified(quantized, exact, args.quant)
        with staged(args.out) as directory:
            for path in quantized.iterdir():
                path.rename(directory / path.name)
        return manifest


def _require_verified(quantized: Path, exact: Path, scheme: str) -> None:
    from lightvla_ros.commands import verify
    from lightvla_ros.core.errors import BundleError

    parser = argparse.ArgumentParser()
    verify.add_arguments(parser)
    arguments = [str(quantized), "--backend", "onnxruntime", "--checkpoint", str(exact)]
    if verify.run(parser.parse_args(arguments)):
        raise BundleError(
            f"bundle quantised to {scheme}",
            got="figures beyond the limits of config/verification.json, see above",
            expected="the same actions as in float32",
            fix="use another scheme or none; --no-verify keeps it all the same, nothing was written",
        )


@contextmanager
def _progress_bar() -> Iterator[ExportProgress]:
    from tqdm import tqdm

    from lightvla_ros.backends.manifest import PARTS

    bar: Any = None

    def show(what: str, done: int, total: int) -> None:
        nonlocal bar
        if bar is None or bar.desc != what:
            if bar is not None:
                bar.close()
            bar = tqdm(desc=what, total=total, unit="B" if what in PARTS else "", unit_scale=True)
        bar.update(done - bar.n)

    try:
        yield show
    finally:
        if bar is not None:
            bar.close()
