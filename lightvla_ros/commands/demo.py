"""`lightvla demo`: a simulated arm acts on instructions through the real ROS graph."""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from lightvla_ros.commands._demo_report import EpisodeResult, Recorder, summarise, table
from lightvla_ros.commands._processes import Child, running
from lightvla_ros.core.errors import ConfigError, LightVlaError
from lightvla_ros.core.paths import engine_directory

if TYPE_CHECKING:
    from lightvla_ros.nodes.demo_monitor import DemoMonitor

HELP = "run a simulated arm and the policy as two ROS 2 nodes and watch it act"

SIM_MODULE = "lightvla_ros.nodes.sim_node"
MANIFEST_NAME = "manifest.json"
POLICY_MODULE = "lightvla_ros.nodes.policy_node"
# A world that renders on a slow machine still steps more often than this.
SILENT_WORLD_S = 10.0
# How long a policy node may say it is not active before that counts as its answer.
REFUSED_AFTER_S = 5.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.add_argument(
        "--engine", default="mini", help="engine bundle, a name or a directory (default: %(default)s)"
    )
    parser.add_argument("--backend", default="auto", help="auto, onnxruntime or torch (default: %(default)s)")
    parser.add_argument(
        "--episodes", type=_positive, default=3, help="how many episodes (default: %(default)s)"
    )
    parser.add_argument(
        "--max-steps",
        type=_positive,
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
    args.out.mkdir(parents=True, exist_ok=True)
    use_private_domain(args.domain_id)
    notes = policy_notes(args.engine)
    print(f"policy {args.engine}: {notes or 'the bundle says nothing about its training'}")
    recorder = Recorder(args.out)
    monitor = _make_monitor(recorder)
    try:
        with running(_modules(args), log_directory=args.out) as children:
            _wait_for_nodes(monitor, children, args.start_timeout_s)
            results = _run_episodes(monitor, children, recorder, args)
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


def policy_notes(engine: str) -> dict[str, Any]:
    """Return what a bundle says about its training and measured success; empty where it says nothing."""
    try:
        manifest = engine_directory(engine) / MANIFEST_NAME
        return dict(json.loads(manifest.read_text(encoding="utf-8")).get("notes", {}))
    except (LightVlaError, OSError, ValueError):
        return {}  # the policy node refuses such a bundle with the whole reason


def _modules(args: argparse.Namespace) -> dict[str, list[str]]:
    engine = str(Path(args.engine).resolve()) if Path(args.engine).is_dir() else args.engine
    policy = {"engine": engine, "backend": args.backend, "auto_activate": "true", "enable_actuation": "true"}
    settings = [word for name, value in policy.items() for word in ("-p", f"{name}:={value}")]
    return {SIM_MODULE: ["--ros-args", "-p", f"seed:={args.seed}"], POLICY_MODULE: ["--ros-args", *settings]}


def _make_monitor(recorder: Recorder) -> DemoMonitor:
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
    return DemoMonitor(recorder.add)


def _wait_for_nodes(monitor: DemoMonitor, children: dict[str, Child], timeout_s: float) -> None:
    """Wait until the world runs and the policy node is active.

    Raises:
        LightVlaError: a node ended, did not start in time, or refused to become active.
    """
    deadline_s = time.monotonic() + timeout_s
    answered_s: float | None = None
    with tqdm(desc="starting both nodes", bar_format="{desc}: {elapsed}", leave=False) as progress:
        while True:
            for child in children.values():
                child.check()
            monitor.wait_until(lambda: False, 0.2)
            progress.update()
            state = monitor.policy_state()
            if state == "active" and monitor.status:
                return
            now_s = time.monotonic()
            answered_s = (answered_s or now_s) if state and state != "active" else None
            if answered_s is not None and now_s - answered_s > REFUSED_AFTER_S:
                raise children[POLICY_MODULE].failure(f"the lifecycle state {state!r}, which does not change")
            if now_s > deadline_s:
                silent = SIM_MODULE if not monitor.status else POLICY_MODULE
                raise children[silent].failure(f"nothing heard of it in {timeout_s:g} s")


def _run_episodes(
    monitor: DemoMonitor, children: dict[str, Child], recorder: Recorder, args: argparse.Namespace
) -> list[EpisodeResult]:
    instructions = [args.instruction] if args.instruction else list(monitor.status["instructions"])
    random.Random(args.seed).shuffle(instructions)
    results = []
    for number in range(args.episodes):
        instruction = instructions[number % len(instructions)]
        result = _run_episode(monitor, children, recorder, instruction, args.seed + number, args.max_steps)
        results.append(result)
    if not monitor.chunks.intervals:
        reason = {key: value for key, value in monitor.diagnostics.items() if value}
        raise children[POLICY_MODULE].failure(f"no action chunk; its diagnostics say {reason}")
    return results


def _run_episode(
    monitor: DemoMonitor,
    children: dict[str, Child],
    recorder: Recorder,
    instruction: str,
    seed: int,
    max_steps: int,
) -> EpisodeResult:
    monitor.start_episode(instruction, seed)
    recorder.start_episode(instruction)
    first_frame = len(monitor.retained)
    with tqdm(total=max_steps, desc=instruction, unit="step", leave=False) as progress:
        while not monitor.status["success"] and monitor.status["step"] < max_steps:
            _await_step(monitor, children)
            progress.n = min(monitor.status["step"], max_steps)
            progress.set_postfix_str(_live(monitor))
    monitor.end_episode()
    status = monitor.status
    recorder.end_episode(success=status["success"])
    retained = monitor.retained[first_frame:]
    return EpisodeResult(
        instruction=instruction,
        seed=seed,
        success=status["success"],
        steps=status["step"],
        retained_mean=sum(retained) / len(retained) if retained else 0.0,
    )


def _await_step(monitor: DemoMonitor, children: dict[str, Child]) -> None:
    step = monitor.status["step"]

    def has_moved_or_ended() -> bool:
        return monitor.status["step"] > step or not all(child.is_alive for child in children.values())

    in_time = monitor.wait_until(has_moved_or_ended, SILENT_WORLD_S)
    for child in children.values():
        child.check()
    if not in_time:
        raise children[SIM_MODULE].failure(f"a world that stands still for {SILENT_WORLD_S:g} s")


def _live(monitor: DemoMonitor) -> str:
    retained = (
        f"{monitor.retained[-1]}/{monitor.num_visual_tokens} tokens" if monitor.retained else "no frame yet"
    )
    return f"{retained}, chunks {monitor.chunks.hz:.1f} Hz, commands {monitor.commands.hz:.1f} Hz"


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not at least 1")
    return value
