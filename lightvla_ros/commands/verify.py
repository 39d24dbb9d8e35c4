"""`lightvla verify`: an engine against the torch model."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightvla_ros.backends.comparison import Comparison
    from lightvla_ros.model import LightVla

HELP = "compare an engine with the torch model it was exported from"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.add_argument("bundle", help="engine bundle: a directory or a name, for example mini")
    parser.add_argument(
        "--backend", default="auto", help="engine to verify: onnxruntime, tensorrt (default: auto)"
    )
    parser.add_argument(
        "--checkpoint",
        type=Path,
        help="checkpoint to compare with (default: the weights inside the bundle, run by torch)",
    )
    parser.add_argument(
        "--samples", type=_positive, default=8, help="random inputs to compare (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the random inputs (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="end with one JSON object")


def run(args: argparse.Namespace) -> int:
    """Compare and return 1 when a figure is beyond its threshold."""
    from tqdm import tqdm

    from lightvla_ros.app import find_directory, load_engine
    from lightvla_ros.backends.comparison import compare, worst
    from lightvla_ros.commands._inputs import random_samples

    directory = find_directory(args.bundle)
    loaded = load_engine(directory, args.backend)
    reference = _reference(directory, args.checkpoint)
    samples = random_samples(loaded, args.samples, args.seed)
    comparisons = [
        compare(reference, loaded.engine, sample) for sample in tqdm(samples, unit="sample", leave=False)
    ]
    loaded.engine.close()
    summary = _summary(worst(comparisons), comparisons, loaded.backend)
    print(_table(summary))
    if args.json:
        print(json.dumps(summary))
    return 0 if summary["passed"] else 1


def _reference(directory: Path, checkpoint: Path | None) -> Any:
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
        return TorchEngine(model_from_bundle(directory, manifest))
    return TorchEngine(_checkpoint_of(manifest.checkpoint_hash, checkpoint))


def _checkpoint_of(checkpoint_hash: str, directory: Path) -> LightVla:
    from lightvla_ros.backends.bundle_model import weights_hash
    from lightvla_ros.core.errors import BundleError
    from lightvla_ros.model import load_checkpoint

    model = load_checkpoint(directory)
    if (digest := weights_hash(model)) != checkpoint_hash:
        raise BundleError(
            f"weights in {directory}",
            got=f"hash {digest[:12]}...",
            expected=f"{checkpoint_hash[:12]}..., those the bundle was exported from",
            fix="name the bundle's own checkpoint, or export again",
        )
    return model


def _summary(total: Comparison, comparisons: list[Comparison], backend: str) -> dict[str, Any]:
    return {
        "passed": total.passed,
        "action_cosine": total.action_cosine,
        "max_abs_error": total.max_abs_error,
        "kept_iou": total.kept_iou,
        "backend": backend,
        "samples": [asdict(comparison) for comparison in comparisons],
    }


def _table(summary: dict[str, Any]) -> str:
    from lightvla_ros.backends.comparison import MAX_ABS_ERROR, MIN_ACTION_COSINE, MIN_KEPT_IOU

    retained = [sample["retained"] for sample in summary["samples"]]
    return "\n".join(
        [
            f"{summary['backend']} against torch, worst of {len(retained)} samples",
            f"  retained       {min(retained)} to {max(retained)} tokens",
            f"  action cosine  {summary['action_cosine']:.7f}  (at least {MIN_ACTION_COSINE})",
            f"  max abs error  {summary['max_abs_error']:.1e}    (at most {MAX_ABS_ERROR})",
            f"  kept-set IoU   {summary['kept_iou']:.4f}     (at least {MIN_KEPT_IOU})",
            "passed" if summary["passed"] else "FAILED",
        ]
    )


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not at least 1")
    return value
