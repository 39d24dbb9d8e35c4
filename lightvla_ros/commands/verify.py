"""`lightvla verify`: an engine against the torch model."""

from __future__ import annotations

import argparse
import json
import tempfile
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from lightvla_ros.commands._arguments import positive_int

if TYPE_CHECKING:
    from lightvla_ros.backends.comparison import EngineSample, InspectableEngine, ReferenceEngine
    from lightvla_ros.backends.loading import LoadedEngine
    from lightvla_ros.backends.manifest import Manifest
    from lightvla_ros.backends.tensorrt.plan import PlanSet
    from lightvla_ros.backends.thresholds import Thresholds
    from lightvla_ros.backends.verification import Verdict
    from lightvla_ros.model import LightVla

HELP = "compare an engine with the torch model it was exported from"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    # long: a call per option.
    from lightvla_ros.commands._inputs import WORLDS

    parser.add_argument("bundle", help="engine bundle: a directory or a name, for example mini")
    parser.add_argument(
        "--backend", default="auto", help="engine to verify: onnxruntime, tensorrt, ... (default: auto)"
    )
    parser.add_argument(
        "--plans",
        type=Path,
        metavar="DIR",
        help="plan set to verify with TensorRT (default: the bundle's that fits this machine); "
        "the result is kept there as verification.json",
    )
    parser.add_argument(
        "--checkpoint",
        metavar="SOURCE",
        help="checkpoint or float32 bundle to compare with (default: the weights inside the bundle); "
        "needed where the bundle's weights are rounded or quantised",
    )
    inputs = parser.add_mutually_exclusive_group()
    inputs.add_argument(
        "--world", choices=WORLDS, help="compare on frames of this simulated world instead of random inputs"
    )
    inputs.add_argument(
        "--samples-file",
        type=Path,
        metavar="FILE",
        help="compare on the samples of an .npz file: arrays <sample>/input_ids, pixel_values and proprio, "
        "and what the reference must give for them, normalized_actions and keep_mask",
    )
    parser.add_argument(
        "--samples", type=positive_int, default=8, help="inputs to compare (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the inputs (default: %(default)s)")
    parser.add_argument(
        "--thresholds", type=Path, metavar="FILE", help="JSON file of limits that replace the shipped ones"
    )
    parser.add_argument(
        "--widen",
        action="store_true",
        help="run the graphs of a half-precision bundle in float32 with ONNX Runtime: checks structure and "
        "rounded weights where no GPU runs them, not what a GPU computes",
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="also write the report to this JSON file")
    parser.add_argument("--json", action="store_true", help="end with one JSON object")


def run(args: argparse.Namespace) -> int:
    """Compare and return 1 when a figure is beyond its threshold."""
    from lightvla_ros.backends.loading import find_directory
    from lightvla_ros.backends.thresholds import load_thresholds
    from lightvla_ros.backends.verification import write_record
    from lightvla_ros.commands._verify_report import table

    directory = find_directory(args.bundle)
    with ExitStack() as stack:
        subject = _subject(args, directory, stack)
        thresholds = load_thresholds(subject.kind, args.thresholds)
        reference, origin = _reference(directory, args.checkpoint)
        samples = _samples(args, subject.loaded)
        verdict = _compare(reference, subject.loaded, samples, thresholds)
    report = {
        **verdict.to_mapping(),
        "bundle": directory.name,
        "backend": subject.loaded.backend,
        "kind": subject.kind,
        "widened": args.widen,
        "reference": origin,
        "inputs": _source(args, len(samples)),
    }
    print(table(verdict, report))
    if subject.plan_set is not None:
        record = write_record(subject.plan_set.directory, report, subject.plan_set.fingerprint.digest)
        print(f"wrote {record}")
    if args.out is not None:
        args.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    if args.json:
        print(json.dumps(report))
    return 0 if verdict.passed else 1


@dataclass(frozen=True, slots=True, kw_only=True)
class _Subject:
    """What is verified.

    Attributes:
        loaded: the engine.
        kind: its precision or quantisation, which chooses the thresholds.
        plan_set: the plans it runs, or None where it runs no plans.
    """

    loaded: LoadedEngine
    kind: str
    plan_set: PlanSet | None = None


def _subject(args: argparse.Namespace, directory: Path, stack: ExitStack) -> _Subject:
    from lightvla_ros.backends.loading import load_engine
    from lightvla_ros.backends.manifest import Manifest

    manifest = Manifest.read(directory)
    kind, backend = manifest.quantization or manifest.precision, args.backend
    if args.widen:
        directory, backend = _widened(args, directory, manifest, stack), "onnxruntime"
    elif args.plans is not None or backend.startswith("tensorrt"):
        backend = "tensorrt"  # which of the two libraries, the plans say
    loaded = load_engine(directory, backend, allow_unverified=True, plans=args.plans)
    stack.enter_context(closing(loaded.engine))
    if loaded.backend == "tensorrt":
        plan_set = _plan_set(directory, manifest, args.plans)
        return _Subject(loaded=loaded, kind=plan_set.fingerprint.precision, plan_set=plan_set)
    if loaded.backend == "torch":  # runs in half precision on a GPU, whatever the bundle's
        model = cast(Any, loaded.engine).model
        kind = str(model.projector.fc1.weight.dtype).removeprefix("torch.")
    return _Subject(loaded=loaded, kind=kind)


def _widened(args: argparse.Namespace, directory: Path, manifest: Manifest, stack: ExitStack) -> Path:
    from lightvla_ros.backends.widening import widen_bundle
    from lightvla_ros.core.errors import ConfigError

    if args.plans is not None or args.backend not in ("auto", "onnxruntime"):
        raise ConfigError(
            "--widen",
            got=f"--plans {args.plans}" if args.plans else f"--backend {args.backend}",
            expected="neither: it runs the bundle's graphs with ONNX Runtime",
            fix="leave one of them out",
        )
    scratch = stack.enter_context(tempfile.TemporaryDirectory())
    return widen_bundle(directory, manifest, Path(scratch) / directory.name)


def _plan_set(directory: Path, manifest: Manifest, plans: Path | None) -> PlanSet:
    """Return the plan set that `load_engine` chose."""
    from lightvla_ros.backends.tensorrt.plan_selection import choose_plans
    from lightvla_ros.backends.tensorrt.runtime import machine

    return choose_plans(directory, manifest, machine, plans=plans, allow_unverified=True)


def _reference(directory: Path, checkpoint: str | None) -> tuple[ReferenceEngine, str]:
    """Return torch in float32 on the CPU, and whose weights it has."""
    from lightvla_ros.backends.loading import find_directory
    from lightvla_ros.backends.manifest import Manifest

    manifest = Manifest.read(directory)
    try:
        from lightvla_ros.backends.bundle_model import model_from_bundle
        from lightvla_ros.backends.torch_engine import TorchEngine
    except ImportError as e:
        from lightvla_ros.core.errors import EngineError

        raise EngineError(
            "reference of the comparison",
            got=str(e),
            expected="PyTorch",
            fix="pip install 'lightvla_ros[torch]'",
        ) from e
    if checkpoint is None:
        return TorchEngine(model_from_bundle(directory, manifest).float()), "the bundle's own weights"
    source = find_directory(checkpoint)
    return TorchEngine(_checkpoint_of(manifest.checkpoint_hash, source)), f"the weights of {source.name}"


def _checkpoint_of(checkpoint_hash: str, directory: Path) -> LightVla:
    from lightvla_ros.backends.bundle_model import model_from_bundle, weights_hash
    from lightvla_ros.backends.manifest import MANIFEST_NAME, Manifest
    from lightvla_ros.core.errors import BundleError
    from lightvla_ros.model import load_checkpoint

    if (directory / MANIFEST_NAME).is_file():
        model = model_from_bundle(directory, Manifest.read(directory)).float()
    else:
        model = load_checkpoint(directory)
    if (digest := weights_hash(model)) != checkpoint_hash:
        raise BundleError(
            f"weights in {directory}",
            got=f"hash {digest[:12]}...",
            expected=f"{checkpoint_hash[:12]}..., those the bundle was exported from",
            fix="name the bundle's own checkpoint, or export again",
        )
    return model


def _samples(args: argparse.Namespace, loaded: LoadedEngine) -> list[EngineSample]:
    from lightvla_ros.commands._inputs import file_samples, random_samples, world_samples

    if args.samples_file is not None:
        return file_samples(loaded, args.samples_file)
    return (world_samples if args.world else random_samples)(loaded, args.samples, args.seed)


def _source(args: argparse.Namespace, count: int) -> str:
    if args.samples_file is not None:
        return f"{count} samples of {args.samples_file.name}"
    what = f"frames of {args.world}" if args.world else "random inputs"
    return f"{count} {what}, seed {args.seed}"


def _compare(
    reference: ReferenceEngine, loaded: LoadedEngine, samples: list[EngineSample], thresholds: Thresholds
) -> Verdict:
    from tqdm import tqdm

    from lightvla_ros.backends.comparison import compare
    from lightvla_ros.backends.verification import Verdict

    engine = cast("InspectableEngine", loaded.engine)
    progress = tqdm(samples, desc="comparing", unit="sample", leave=False)
    return Verdict(
        comparisons=tuple(compare(reference, engine, sample) for sample in progress), thresholds=thresholds
    )
