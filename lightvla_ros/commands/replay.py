"""`lightvla replay`: a recording through the policy node once more, compared with what it did then."""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from lightvla_ros.commands._arguments import positive_int
from lightvla_ros.commands._processes import ros_arguments, running
from lightvla_ros.commands.demo import POLICY_MODULE, use_private_domain
from lightvla_ros.core.errors import LightVlaError
from lightvla_ros.core.paths import engine_directory

if TYPE_CHECKING:
    from lightvla_ros.recording.inferences import RecordedInference
    from lightvla_ros.recording.parity import Parity

HELP = "show a recording to the policy node again and compare its chunks with the recorded ones"

FAILED = 1
# One shot after the other, whenever the node is ready: no age is too old, and nothing may move.
_REPLAYED_POLICY = {
    "auto_activate": True,
    "enable_actuation": False,
    "proprio.source": "proprio",
    "schedule.mode": "continuous",
    "schedule.execution_horizon": 1,
    "camera.reliability": "reliable",
    "stale_after_s": 60.0,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.add_argument("bag", type=Path, help="folder of the recording, made by `lightvla record`")
    parser.add_argument(
        "--engine", help="engine bundle, a name or a directory (default: the one that was recorded, by name)"
    )
    parser.add_argument(
        "--backend", help="auto, onnxruntime, tensorrt or torch (default: the one that was recorded)"
    )
    parser.add_argument(
        "--num-threads", type=int, default=0, help="CPU threads (default: the backend's choice)"
    )
    parser.add_argument("--limit", type=positive_int, help="replay at most so many inferences (default: all)")
    parser.add_argument(
        "--tolerance",
        type=float,
        default=0.0,
        help="largest difference of an action that passes, robot units (default: none, bit for bit)",
    )
    parser.add_argument(
        "--timeout-s",
        type=float,
        default=90.0,
        help="how long one inference, and starting the node, may take (default: %(default)s)",
    )
    parser.add_argument("--domain-id", type=int, help="ROS domain (default: one of our own)")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")


def run(args: argparse.Namespace) -> int:
    """Replay; 1 when a chunk differs by more than the tolerance."""
    from lightvla_ros.recording.bag import BagReader
    from lightvla_ros.recording.inferences import RecordedInferences

    with BagReader(args.bag) as bag:
        inferences = RecordedInferences(bag)
        records = inferences.records
        parity = _compare(args, islice(inferences.with_images(records), args.limit), len(records))
    passed = parity.identical == parity.compared or parity.max_abs_error <= args.tolerance
    print(
        f"{parity.compared} of {len(records)} inferences replayed, {parity.identical} identical bit for bit; "
        f"actions differ by at most {parity.max_abs_error:g}, retained sets agree by at least "
        f"{parity.kept_iou:.3f} (IoU)"
    )
    if args.json:
        summary = {
            "inferences": len(records),
            "replayed": parity.compared,
            "identical": parity.identical,
            "max_abs_error": parity.max_abs_error,
            "kept_iou": parity.kept_iou,
            "passed": passed,
        }
        print(json.dumps(summary))
    return 0 if passed else FAILED


def _compare(args: argparse.Namespace, inferences: Iterator[RecordedInference], number: int) -> Parity:
    """Show a policy node of our own the inferences, of which there are at most `number`."""
    from lightvla_ros.nodes.observer import observing
    from lightvla_ros.nodes.replayer import Replayer
    from lightvla_ros.recording.parity import Parity

    parity = Parity()
    first = next(inferences, None)
    if first is None:
        raise _no_images(args.bag, number)
    use_private_domain(args.domain_id)
    modules = {POLICY_MODULE: _arguments(args, first)}
    with (
        tempfile.TemporaryDirectory(prefix="lightvla-") as logs,
        running(modules, log_directory=Path(logs)) as children,
        observing("lightvla_replay") as (node, executor),
        tqdm(total=number, unit="inference", disable=None, leave=False) as progress,
    ):
        replayer = Replayer(
            node,
            executor,
            image_types={name: image.type_name for name, image in first.images.items()},
            check=children[POLICY_MODULE].check,
        )
        for inference in chain([first], inferences):
            parity.add(inference.record, replayer.ask(inference, args.timeout_s))
            progress.update()
    return parity


def _arguments(args: argparse.Namespace, first: RecordedInference) -> list[str]:
    record = first.record
    transports = {image.type_name.endswith("CompressedImage") for image in first.images.values()}
    if len(transports) > 1:
        raise LightVlaError(
            f"recording {args.bag}", got="raw and compressed images", expected="cameras of one kind"
        )
    parameters = {
        **_REPLAYED_POLICY,
        "engine": engine_directory(args.engine or record.engine).resolve(),
        "backend": args.backend or record.backend,
        "num_threads": args.num_threads,
        "camera.transport": "compressed" if transports.pop() else "raw",
        "camera.upside_down": " ".join(name for name, camera in record.cameras.items() if camera.upside_down),
        "worker.timeout_s": args.timeout_s,
    }
    return ros_arguments(parameters)


def _no_images(bag: Path, number: int) -> LightVlaError:
    return LightVlaError(
        f"recording {bag}",
        got=f"{number} inferences, none of them with all its images",
        expected="the images that the policy was shown",
        fix="record again; large images are lost without the DDS profile of config/fastdds.xml",
    )
