"""`lightvla record`: all that a policy node hears and says, in a bag that anybody can open."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from pathlib import Path

from tqdm import tqdm

from lightvla_ros.core.errors import LightVlaError
from lightvla_ros.view.policy_status import DEFAULT_NODE

HELP = "record what a policy node hears and says: cameras, state, masks, chunks, commands, diagnostics"

_WATCH_PERIOD_S = 0.3
_SPIN_TIMEOUT_S = 0.1
INFERENCE = "/policy/inference"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.add_argument("--out", type=Path, required=True, help="folder of the recording; must not exist yet")
    parser.add_argument("--node", default=DEFAULT_NODE, help="full name of the node (default: %(default)s)")
    parser.add_argument(
        "--duration-s", type=float, help="how long to record (default: until Ctrl-C or SIGTERM)"
    )
    parser.add_argument(
        "--wait-s", type=float, default=30.0, help="how long to wait for the node (default: %(default)s)"
    )
    parser.add_argument(
        "--overlays",
        action="store_true",
        help="record the overlays, too; `lightvla render` draws them without",
    )
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")


def run(args: argparse.Namespace) -> int:
    """Record until told to stop."""
    from lightvla_ros.recording.bag import BagWriter, check_free

    check_free(args.out)  # now, not once a node was waited for
    from lightvla_ros.nodes.observer import observing
    from lightvla_ros.nodes.recorder import Recorder, topics_of

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    node_name = "/" + args.node.lstrip("/")
    with observing("lightvla_record") as (node, executor):
        deadline_s = time.monotonic() + args.wait_s
        while not topics_of(node, node_name):
            if time.monotonic() > deadline_s:
                raise _absent(node_name, args.wait_s)
            executor.spin_once(timeout_sec=_SPIN_TIMEOUT_S)
        with BagWriter(args.out) as bag, tqdm(unit=" messages", disable=None, leave=False) as progress:
            recorder = Recorder(
                node, bag, policy_node=node_name, with_overlays=args.overlays, warn=progress.write
            )
            end_s = None if args.duration_s is None else time.monotonic() + args.duration_s
            next_look_s = 0.0
            try:
                while end_s is None or time.monotonic() < end_s:
                    if time.monotonic() >= next_look_s:
                        recorder.watch()
                        progress.n = sum(bag.counts.values())
                        progress.set_postfix_str(f"{bag.num_bytes / 1e6:.1f} MB")
                        next_look_s = time.monotonic() + _WATCH_PERIOD_S
                    executor.spin_once(timeout_sec=_SPIN_TIMEOUT_S)
            except KeyboardInterrupt:
                pass  # the way to end it
            recorder.close()
    _report(args, bag.counts, bag.num_bytes)
    return 0


def _report(args: argparse.Namespace, counts: dict[str, int], num_bytes: int) -> None:
    inferences = sum(count for topic, count in counts.items() if topic.endswith(INFERENCE))
    for topic, count in sorted(counts.items()):
        print(f"{count:>8}  {topic}")
    print(f"{sum(counts.values()):>8}  messages, {num_bytes / 1e6:.1f} MB in {args.out}")
    if not inferences:
        print(
            "lightvla record: warning: no inference was recorded, so nothing can be rendered or replayed. "
            "Fix: record while the policy acts on an instruction",
            file=sys.stderr,
        )
    if args.json:
        summary = {"messages": sum(counts.values()), "bytes": num_bytes, "inferences": inferences}
        print(json.dumps({**summary, "topics": counts, "out": str(args.out)}))


def _absent(node_name: str, wait_s: float) -> LightVlaError:
    return LightVlaError(
        f"policy node {node_name}",
        got=f"no such node in {wait_s:g} s",
        expected="the node to record",
        fix="start it, choose with --node, or set ROS_DOMAIN_ID as it has",
    )
