"""The course of a demo: wait for both nodes, then one episode after the other."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from lightvla_ros.commands._demo_report import EpisodeResult, Recorder
from lightvla_ros.commands._processes import Child

if TYPE_CHECKING:
    from lightvla_ros.nodes.demo_monitor import DemoMonitor

# A world that renders on a slow machine still steps more often than this.
SILENT_WORLD_S = 10.0
# How long a policy node may say it is not active before that counts as its answer.
REFUSED_AFTER_S = 5.0


def wait_for_nodes(monitor: DemoMonitor, *, world: Child, policy: Child, timeout_s: float) -> None:
    """Return once the world runs and the policy node is active.

    Raises:
        LightVlaError: one of them ended, refuses or stays silent; with its log.
    """
    deadline_s = time.monotonic() + timeout_s
    refused_s: float | None = None

    def is_ready() -> bool:
        monitor.wait_until(lambda: bool(monitor.status), 0.2)
        return bool(monitor.status) and monitor.policy_state() == "active"

    with _progress("starting both nodes", bar_format="{desc}: {elapsed}") as progress:
        while not is_ready():
            world.check()
            policy.check()
            progress.update()
            state, now_s = monitor.policy_state(), time.monotonic()
            refused_s = (refused_s or now_s) if state not in ("", "active") else None
            if refused_s is not None and now_s - refused_s > REFUSED_AFTER_S:
                raise policy.failure(f"the lifecycle state {state!r}, which does not change")
            if now_s > deadline_s:
                silent = policy if monitor.status else world
                raise silent.failure(f"nothing heard of it in {timeout_s:g} s")


class DemoRun:
    """Poses tasks to a policy node that acts in a world node, and sees how it does.

    Every method raises `LightVlaError` with the log of the node at fault when one of them ends,
    falls silent or refuses.

    Args:
        monitor: the demo's eyes and voice on the graph.
        recorder: draws what `monitor` sees.
        world: process of the world node.
        policy: process of the policy node.
        max_steps: control steps after which an episode is given up.
    """

    def __init__(
        self, monitor: DemoMonitor, recorder: Recorder, *, world: Child, policy: Child, max_steps: int
    ) -> None:
        self._monitor = monitor
        self._recorder = recorder
        self._world = world
        self._policy = policy
        self._max_steps = max_steps

    def run_episodes(self, episodes: int, *, seed: int, instruction: str | None) -> list[EpisodeResult]:
        """Run episodes with counted seeds, on one instruction or on the world's in random order."""
        instructions = [instruction] if instruction else list(self._monitor.status["instructions"])
        random.Random(seed).shuffle(instructions)
        results = []
        for number in range(episodes):
            result = self._run_episode(instructions[number % len(instructions)], seed + number)
            outcome = "success" if result.success else "no success"
            print(
                f"episode {number + 1}: {result.instruction}: {outcome} in {result.steps} steps", flush=True
            )
            results.append(result)
        if not self._monitor.chunks.intervals:
            raise self._policy.failure(f"no action chunk; its diagnostics say {self._monitor.diagnostics}")
        return results

    def _run_episode(self, instruction: str, seed: int) -> EpisodeResult:
        monitor = self._monitor
        monitor.start_episode(instruction, seed)
        monitor.instruct(instruction)
        self._recorder.start_episode()
        first_frame = len(monitor.retained)
        with _progress(instruction, total=self._max_steps, unit="step") as progress:
            while not monitor.status["success"] and monitor.status["step"] < self._max_steps:
                self._await_step()
                progress.n = min(monitor.status["step"], self._max_steps)
                progress.set_postfix_str(self._live())
        monitor.end_episode()
        self._recorder.end_episode(success=monitor.status["success"])
        retained = monitor.retained[first_frame:]
        return EpisodeResult(
            instruction=instruction,
            seed=seed,
            success=monitor.status["success"],
            steps=monitor.status["step"],
            retained_mean=sum(retained) / len(retained) if retained else 0.0,
        )

    def _await_step(self) -> None:
        step = self._monitor.status["step"]
        in_time = self._monitor.wait_until(
            lambda: (
                self._monitor.status["step"] > step or not (self._world.is_alive and self._policy.is_alive)
            ),
            SILENT_WORLD_S,
        )
        self._check_nodes()
        if not in_time:
            raise self._world.failure(f"a world that stands still for {SILENT_WORLD_S:g} s")

    def _check_nodes(self) -> None:
        self._world.check()
        self._policy.check()

    def _live(self) -> str:
        monitor = self._monitor
        retained = f"{monitor.retained[-1]}/{monitor.num_visual_tokens} tokens, " if monitor.retained else ""
        return f"{retained}chunks {monitor.chunks.hz:.1f} Hz, commands {monitor.commands.hz:.1f} Hz"


def _progress(
    text: str, *, total: int | None = None, unit: str = "it", bar_format: str | None = None
) -> tqdm[Any]:
    """Make a progress bar that vanishes when done and is not shown where nobody watches."""
    return tqdm(desc=text, total=total, unit=unit, bar_format=bar_format, leave=False, disable=None)
