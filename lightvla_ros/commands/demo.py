"""`lightvla demo`: a simulated arm acts on instructions through the real ROS graph."""

from __future__ import annotations

import argparse
import json
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightvla_ros.commands._arguments import positive_int
from lightvla_ros.commands._demo_report import Recorder, describe_policy, summarise, table
from lightvla_ros.commands._demo_run import DemoRun, wait_for_nodes
from lightvla_ros.commands._processes import ros_arguments, running
from lightvla_ros.core.errors import ConfigError
from lightvla_ros.core.paths import engine_directory

if TYPE_CHECKING:
    from collections.abc import Callable

    from lightvla_ros.nodes.demo_monitor import DemoMonitor, SeenInference

HELP = "run a simulated arm and the policy as two ROS 2 nodes and watch it act"

SIM_MODULE = "lightvla_ros.nodes.sim_node"
POLICY_MODULE = "lightvla_ros.nodes.policy_node"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.add_argument(
        "--engine", default="mini", help="engine bundle, a name or a directory (default: %(default)s)"
    )
    parser.add_argument("--backend", default="auto", help="auto, onnxruntime or torch (default: %(default)s)")
    parser.add_argument(
        "--episodes", type=positive_int, default=3, help="how many episodes (default: %(default)s)"
    )
    parser.add_argument(
        "--max-steps",
        type=positive_int,
        default=300,
        help="control steps per episode at 20 Hz (default: %(default)s)",
    )
    parser.add_argument(
        "--instruction", help="the same instruction in every episode (default: the world's, in turn)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of the first episode (default: %(default)s)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("out"),
        help="folder for video, picture and logs (default: %(default)s)",
    )
    parser.add_argument("--domain-id", type=int, help="ROS domain (default: one of our own)")
    parser.add_argument(
        "--start-timeout-s",
        type=float,
        default=90.0,
        help="how long the nodes may take to start (default: %(default)s)",
    )
    parser.add_argument(
        "--headless",
        action="store_true",
        help="open no window; the demo has none yet, so this changes nothing",
    )
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")


def run(args: argparse.Namespace) -> int:
    """Run the demo; its processes have ended when this returns or raises."""
    # A job runner's polite request to stop must end the children as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    engine = engine_directory(args.engine).resolve()
    args.out.mkdir(parents=True, exist_ok=True)
    use_private_domain(args.domain_id)
    notes = policy_notes(engine)
    print(describe_policy(args.engine, notes), flush=True)
    recorder = Recorder(args.out)
    monitor = make_monitor(recorder.add)
    try:
        with running(_modules(engine, args), log_directory=args.out) as children:
            world, policy = children[SIM_MODULE], children[POLICY_MODULE]
            wait_for_nodes(monitor, world=world, policy=policy, timeout_s=args.start_timeout_s)
            demo = DemoRun(monitor, recorder, world=world, policy=policy, max_steps=args.max_steps)
            results = demo.run_episodes(args.episodes, seed=args.seed, instruction=args.instruction)
    finally:
        monitor.close()
    recorder.close()
    summary = summarise(results, monitor, recorder)
    print(table(summary))
    if args.json:
        print(json.dumps({**summary, "engine": args.engine, "policy_notes": notes}))
    return 0


def use_private_domain(domain_id: int | None) -> None:
    """Keep this process and its children on a ROS domain of this machine alone."""
    chosen = domain_id if domain_id is not None else 1 + os.getpid() % 100
    os.environ["ROS_DOMAIN_ID"] = str(chosen)
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    if os.environ.get("ROS_DISTRO") == "humble":  # whose word for it later distributions warn of
        os.environ["ROS_LOCALHOST_ONLY"] = "1"


def policy_notes(engine: Path) -> dict[str, Any]:
    """Return what a bundle says about its training and measured success; empty where it says nothing."""
    from lightvla_ros.backends.manifest import MANIFEST_NAME

    try:
        return dict(json.loads((engine / MANIFEST_NAME).read_text(encoding="utf-8")).get("notes", {}))
    except (OSError, ValueError, TypeError, AttributeError):
        return {}  # a checkpoint has no manifest; a broken one is refused by the policy node, with the reason


def _modules(engine: Path, args: argparse.Namespace) -> dict[str, list[str]]:
    policy = {"engine": engine, "backend": args.backend, "auto_activate": True, "enable_actuation": True}
    return {SIM_MODULE: ros_arguments({"seed": args.seed}), POLICY_MODULE: ros_arguments(policy)}


def make_monitor(on_inference: Callable[[SeenInference], None] | None) -> DemoMonitor:
    """Join the ROS graph as an observer.

    Args:
        on_inference: takes each inference with its images; None for who needs only counts.

    Raises:
        ConfigError: there is no ROS 2 for this Python.
    """
    try:
        import rclpy
        from rclpy.signals import SignalHandlerOptions

        from lightvla_ros.nodes.demo_monitor import DemoMonitor
    except ImportError as error:
        raise ConfigError(
            "ROS 2 for Python",
            got=str(error),
            expected="rclpy and the standard messages",
            fix="source a ROS 2 installation, or `pip install 'lightvla_ros[ros,sim]'`",
        ) from error
    if not rclpy.ok():
        rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
    return DemoMonitor(on_inference)
