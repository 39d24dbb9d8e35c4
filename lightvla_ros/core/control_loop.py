"""The node without ROS: inputs in, observations and commands out, and every reason not to move.

Callbacks of the inputs, the worker and the publisher run in different threads; each method takes the
lock for a moment and never waits for inference. Times are arguments: `now_ns` is ROS time (the clock
of the stamps), `monotonic_ns` is the computer's.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from lightvla_ros.core.chunk_schedule import ChunkSchedule, RemainingSteps
from lightvla_ros.core.config import NodeConfig
from lightvla_ros.core.errors import InstructionError, ObservationError, WorkerError
from lightvla_ros.core.frame_pairing import Frame, FramePairing, StampedObservation
from lightvla_ros.core.metrics import Window
from lightvla_ros.core.observation import ActionChunk
from lightvla_ros.core.output import Command, GripperSwitch, Output, OutputGate
from lightvla_ros.core.policy import PolicySpec
from lightvla_ros.core.watchdog import ClockGuard, ClockState, InputMonitor, StopReason

STATE = "robot_state"
_NO_INSTRUCTION = StopReason("no_instruction", "waiting for an instruction")
_DISABLED = StopReason("disabled", "commands are disabled; call ~/enable to let the robot move")
_INACTIVE = StopReason("inactive", "the node is not active")
_NO_ACTION = StopReason("no_action", "no action is due: no chunk yet, or inference is too slow")
# Reasons to stand still that the next good chunk lifts.
_PASSING = frozenset({"observation", "worker"})


class ControlLoop:
    """Everything between the messages that come in and those that go out.

    Args:
        config: the node's configuration.
        spec: what the policy needs and gives.
        check_instruction: raises `InstructionError` for an instruction the policy cannot use.
    """

    def __init__(
        self, *, config: NodeConfig, spec: PolicySpec, check_instruction: Callable[[str], None]
    ) -> None:
        self._lock = threading.RLock()
        self._check_instruction = check_instruction
        self._pairing = FramePairing(spec.camera_names, max_skew_ns=0)
        self._monitor = InputMonitor((*spec.camera_names, STATE), stale_after_ns=0)
        self._schedule = ChunkSchedule()
        self._gate = OutputGate(0)
        self._gripper = GripperSwitch(0.0)
        self._clock = ClockGuard(jump_ns=0, stopped_ns=0)
        self._sizes: dict[str, tuple[int, ...]] = {}
        self._proprio: NDArray[np.float64] | None = None
        self._requested = ""
        self._blocks: dict[str, StopReason] = {}
        self._reason: StopReason | None = None
        self.active = False
        self.enabled = False
        self.instruction = ""
        self.epoch = 0
        self._counters: Counter[str] = Counter()
        self.latencies_ms: dict[str, Window] = {}
        self.retained = Window()
        self.edges: deque[StopReason | None] = deque(maxlen=64)
        self.apply(config)

    def apply(self, config: NodeConfig) -> None:
        """Take over the values that may change while running."""
        with self._lock:
            self._config = config
            self._stale_after_ns = round(config.stale_after_s * 1e9)
            self._pairing.max_skew_ns = round(config.camera.max_pair_skew_s * 1e9)
            self._monitor.stale_after_ns = self._stale_after_ns
            self._schedule.new_weight = config.blend_new_weight
            self._schedule.execution_horizon = config.execution_horizon
            self._gate.silence_after_ns = round(config.silence_after_s * 1e9)
            self._gripper.hysteresis = config.gripper.hysteresis
            self._clock.jump_ns = round(config.clock_jump_s * 1e9)
            self._clock.stopped_ns = self._stale_after_ns

    def start(self, now_ns: int) -> None:
        """Become active with a clean slate; the latest instruction and an emergency stop stay in force."""
        with self._lock:
            self.active = True
            self.enabled = self._config.enable_actuation
            self._clear(now_ns)

    def stop(self) -> None:
        """Become inactive: whatever is scheduled or in flight is dropped."""
        with self._lock:
            self.active = self.enabled = False
            self._new_epoch()

    def reset(self, now_ns: int) -> None:
        """Forget faults, an emergency stop, image sizes, frames, state and schedule; not the instruction."""
        with self._lock:
            self._blocks.pop("estop", None)
            self._clear(now_ns)

    def enable(self, enabled: bool) -> None:
        """Let commands out, or not."""
        with self._lock:
            self.enabled = enabled
            self._gripper.reset()

    def instruct(self, text: str) -> None:
        """Take an instruction: a new one drops everything of the old one, an empty one stops.

        Raises:
            InstructionError: the policy cannot use it; the robot stays stopped.
        """
        text = text.strip()
        with self._lock:
            if text == self._requested:
                return
            self._requested, self.instruction = text, ""
            self._blocks.pop("instruction", None)
            self._new_epoch()
        try:
            if text:
                self._check_instruction(text)
        except InstructionError as error:
            self.block("instruction", str(error))
            raise
        with self._lock:
            self.instruction = text

    def add_frame(self, camera: str, frame: Frame, now_ns: int) -> StampedObservation | None:
        """Take an image in.

        Returns:
            The observation to infer from, when the image completes a pair and inference is wanted.

        Raises:
            ObservationError: the image has another size than before, or a stamp in the future.
        """
        with self._lock:
            if not self.active:
                return None
            self._counters[f"frames_{camera}"] += 1
            self._check_frame(camera, frame, now_ns)
            self._monitor.accept(camera, frame.stamp_ns)
            self._counters["frames_stale"] += now_ns - frame.stamp_ns > self._stale_after_ns
            pair = self._pairing.add(camera, frame)
            if pair is None or self._proprio is None or not self.instruction:
                return None
            # What a good chunk lifts must not keep the next observation from being tried.
            stopped = self._blocks.keys() - _PASSING or self._monitor.problem(now_ns)
            if stopped or self._schedule.is_fresh(pair.stamp_ns):
                return None
            return pair.observation(proprio=self._proprio, instruction=self.instruction, epoch=self.epoch)

    def add_proprio(self, proprio: NDArray[np.float64], stamp_ns: int) -> None:
        """Take the robot's state in, float64 [P], finite."""
        with self._lock:
            self._proprio = proprio
            self._monitor.accept(STATE, stamp_ns)

    def refuse(self, name: str, message: str) -> None:
        """Note an input message that cannot be used; motion stops until a usable one comes."""
        with self._lock:
            self._counters[f"refused_{name}"] += 1
            self._monitor.refuse(name, message)
            if name == STATE:
                self._proprio = None
            else:
                self._pairing.forget(name)

    def block(self, code: str, message: str) -> None:
        """Forbid motion for a reason found elsewhere, until `unblock` (or `reset`, for a fault)."""
        with self._lock:
            self._blocks[code] = StopReason(code, message)

    def unblock(self, code: str) -> None:
        """Lift a reason; unknown ones are ignored."""
        with self._lock:
            self._blocks.pop(code, None)

    def accept(self, chunk: ActionChunk, now_ns: int) -> bool:
        """Schedule a finished chunk.

        Returns:
            Whether it was taken; one of an older epoch or all in the past is not.

        Raises:
            SpecError: the chunk is misshapen or not finite.
        """
        with self._lock:
            taken = self.active and self._schedule.replace(chunk, now_ns)
            self._counters["chunks" if taken else "chunks_dropped"] += 1
            if chunk.epoch == self.epoch:
                for code in _PASSING:
                    self._blocks.pop(code, None)
            timings = {**chunk.timings_ms, "observation_age": (now_ns - chunk.stamp_ns) / 1e6}
            for stage, milliseconds in timings.items():
                self.latencies_ms.setdefault(stage, Window()).add(milliseconds)
            if chunk.keep_masks:
                self.retained.add(chunk.num_retained)
            return taken

    def fail(self, error: Exception) -> None:
        """Note a failure: bad observations and lost workers last until a good chunk, others until `reset`."""
        with self._lock:
            code = _failure_code(error)
            self._counters[f"{code}s"] += 1
            self._blocks[code] = StopReason(code, str(error))

    def tick(self, now_ns: int, monotonic_ns: int) -> Command:
        """Say what to publish now; called at the command rate."""
        with self._lock:
            self._watch_clock(now_ns, monotonic_ns)
            problem = self._problem(now_ns)
            if problem is not None:
                self._schedule.reset(self.epoch)
            permitted = self.active and self.enabled and bool(self.instruction)
            step = self._schedule.due(now_ns) if permitted else None
            output = self._gate.decide(monotonic_ns, permitted=permitted, has_action=step is not None)
            self._counters[output.value] += 1
            self._note(problem or self._idle_reason(output))
            if output is not Output.MOVE or step is None:
                return Command(output=output, proprio=self._proprio)
            return Command(
                output=output,
                action=step.action,
                step_ns=step.begins_ns,
                proprio=self._proprio,
                close_gripper=self._gripper.changed(float(step.action[-1])),
            )

    def remaining(self, now_ns: int) -> RemainingSteps | None:
        """Return the steps still ahead, None unless active and instructed with a chunk in hand."""
        with self._lock:
            return self._schedule.remaining(now_ns) if self.active and self.instruction else None

    def count(self, name: str, number: int = 1) -> None:
        """Add to a counter."""
        with self._lock:
            self._counters[name] += number

    def counts(self) -> dict[str, int]:
        """Return a copy of the counters."""
        with self._lock:
            return dict(self._counters)

    @property
    def stop_reason(self) -> StopReason | None:
        """Why the robot did not move at the last tick; None when it did."""
        return self._reason if self.active else _INACTIVE

    def _clear(self, now_ns: int) -> None:
        self._sizes.clear()
        for code in ("fault", *_PASSING):
            self._blocks.pop(code, None)
        self._forget_inputs(now_ns)

    def _check_frame(self, camera: str, frame: Frame, now_ns: int) -> None:
        size = self._sizes.setdefault(camera, frame.image.shape)
        if frame.image.shape != size:
            raise ObservationError(
                f"image of camera {camera}",
                got=f"{frame.image.shape[1]}x{frame.image.shape[0]} pixels",
                expected=f"{size[1]}x{size[0]} as since activation",
                fix="set the camera back, or call ~/reset to go on with the new size",
            )
        if frame.stamp_ns - now_ns > self._stale_after_ns:
            raise ObservationError(
                f"stamp of camera {camera}",
                got=f"{(frame.stamp_ns - now_ns) / 1e9:.2f} s in the future",
                expected="the time of this node's clock",
                fix="synchronise the clocks, and set use_sim_time alike everywhere",
            )

    def _problem(self, now_ns: int) -> StopReason | None:
        return next(iter(self._blocks.values()), None) or self._monitor.problem(now_ns)

    def _idle_reason(self, output: Output) -> StopReason | None:
        if not self.instruction:
            return _NO_INSTRUCTION
        if not self.enabled:
            return _DISABLED
        return None if output is Output.MOVE else _NO_ACTION

    def _watch_clock(self, now_ns: int, monotonic_ns: int) -> None:
        clock = self._clock.update(now_ns, monotonic_ns)
        if clock is ClockState.JUMPED:
            self._counters["clock_jumps"] += 1
            self._forget_inputs(now_ns)
            self._note(StopReason("clock_jump", "ROS time jumped; everything scheduled was dropped"))
        if clock is ClockState.STOPPED:
            self.block("clock_stopped", "ROS time stands still; is the simulation paused or gone?")
        else:
            self.unblock("clock_stopped")

    def _forget_inputs(self, now_ns: int) -> None:
        self._pairing.clear()
        self._proprio = None
        self._monitor.restart(now_ns)
        self._new_epoch()

    def _new_epoch(self) -> None:
        self.epoch += 1
        self._schedule.reset(self.epoch)
        self._gripper.reset()

    def _note(self, reason: StopReason | None) -> None:
        before = self._reason.code if self._reason else None
        if (reason.code if reason else None) != before:
            self.edges.append(reason)
        self._reason = reason


def _failure_code(error: Exception) -> str:
    if isinstance(error, ObservationError):
        return "observation"
    return "worker" if isinstance(error, WorkerError) else "fault"
