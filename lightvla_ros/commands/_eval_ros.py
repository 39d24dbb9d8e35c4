"""`lightvla eval --via ros`: the same episodes by two nodes, in lockstep over topics."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from lightvla_ros.commands._demo_run import wait_for_nodes
from lightvla_ros.commands._processes import Child, ros_arguments, running
from lightvla_ros.commands.demo import POLICY_MODULE, SIM_MODULE, make_monitor, use_private_domain
from lightvla_ros.core.errors import LightVlaError
from lightvla_ros.core.paths import engine_directory
from lightvla_ros.evaluation.closed_loop import Evaluation
from lightvla_ros.evaluation.rollout import EpisodeResult, Task
from lightvla_ros.sim.world import CONTROL_PERIOD_S

if TYPE_CHECKING:
    from lightvla_ros.nodes.demo_monitor import DemoMonitor

_START_TIMEOUT_S = 300.0
# Longer than any chunk of a large model on a CPU.
_SILENT_S = 120.0
_MASKS_TIMEOUT_S = 1.0
# What lets a step of the world's clock take as long as it takes, and changes no action on its way.
_LOCKSTEP_POLICY = {
    "use_sim_time": True,
    "auto_activate": True,
    "enable_actuation": True,
    "chunk_rate_hz": 200.0,
    "stale_after_s": 60.0,
    "max_ahead_s": 1.0,
    "clock_jump_s": 3600.0,
    "schedule.blend_new_weight": 1.0,
}


def evaluate_over_ros(
    evaluation: Evaluation,
    numbers: Iterable[int],
    *,
    engine: str,
    backend: str,
    pruning: bool,
    log_directory: Path,
    domain_id: int | None = None,
) -> Iterator[EpisodeResult]:
    """Run episodes by a world's node and a policy node, yielding each result as it comes.

    Args:
        evaluation: what to evaluate; its policy is not loaded here.
        numbers: which of its episodes.
        engine: bundle or checkpoint of the policy node.
        backend: likewise.
        pruning: whether the policy node prunes.
        log_directory: for the logs of both nodes.
        domain_id: ROS domain; None takes one of this process's own.

    Raises:
        LightVlaError: a node ends, refuses or falls silent; its log says why.
    """
    use_private_domain(domain_id)
    world = {
        "world": evaluation.world.name,
        "render": evaluation.world.render,
        "image_size": evaluation.world.image_size,
        "lockstep": evaluation.horizon,
        "max_steps": evaluation.max_steps or evaluation.world.max_steps,
    }
    policy = {
        "engine": engine_directory(engine).resolve(),
        "backend": backend,
        "pruning": pruning,
        "schedule.execution_horizon": evaluation.horizon,
        **_LOCKSTEP_POLICY,
    }
    monitor = make_monitor(None)
    log_directory.mkdir(parents=True, exist_ok=True)
    modules = {SIM_MODULE: ros_arguments(world), POLICY_MODULE: ros_arguments(policy)}
    try:
        with running(modules, log_directory=log_directory) as children:
            nodes = world_node, policy_node = children[SIM_MODULE], children[POLICY_MODULE]
            wait_for_nodes(monitor, world=world_node, policy=policy_node, timeout_s=_START_TIMEOUT_S)
            for number in numbers:
                yield _episode(evaluation.task(number), evaluation.horizon, monitor, nodes)
    finally:
        monitor.close()


def _episode(task: Task, horizon: int, monitor: DemoMonitor, nodes: Iterable[Child]) -> EpisodeResult:
    monitor.start_episode(task.instruction, task.seed, timeout_s=_START_TIMEOUT_S)
    first_frame = len(monitor.retained)
    monitor.instruct(task.told)
    heard_s, step = time.monotonic(), -1
    while not _is_over(monitor, task):
        monitor.wait_until(lambda: _is_over(monitor, task), 0.5)
        for node in nodes:
            node.check()
        if monitor.status["step"] != step:
            heard_s, step = time.monotonic(), monitor.status["step"]
        elif time.monotonic() - heard_s > _SILENT_S:
            why = f"no step for {_SILENT_S:g} s; the policy node says {monitor.diagnostics}"
            raise LightVlaError("lockstep", got=why, expected="an action chunk for every observation")
    status = monitor.status
    steps = status["success_step"] or status["step"]
    # The masks of the last inference may come after its chunk has been executed.
    monitor.wait_until(
        lambda: len(_retained(monitor, first_frame)) >= math.ceil(steps / horizon), _MASKS_TIMEOUT_S
    )
    monitor.end_episode()
    return EpisodeResult(
        number=task.number,
        seed=task.seed,
        instruction=task.instruction,
        told=task.told,
        success=status["success"],
        steps=steps,
        retained=_retained(monitor, first_frame),
        ages_ms=tuple(step % horizon * 1e3 * CONTROL_PERIOD_S for step in range(steps)),
    )


def _is_over(monitor: DemoMonitor, task: Task) -> bool:
    return bool(monitor.status["success"]) or monitor.status["step"] >= task.max_steps


def _retained(monitor: DemoMonitor, first_frame: int) -> tuple[int, ...]:
    """Return the tokens retained of each observation since a frame, in order.

    By the millisecond, because an observation that is shown again comes a nanosecond later.
    """
    stamps = [stamp_ns // 1_000_000 for stamp_ns in monitor.stamps_ns[first_frame:]]
    by_stamp = dict(zip(stamps, monitor.retained[first_frame:], strict=True))
    return tuple(by_stamp[stamp] for stamp in sorted(by_stamp))
