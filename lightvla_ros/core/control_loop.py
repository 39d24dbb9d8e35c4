"""The node without ROS: inputs in, observations and commands out, and every reason not to move.

Callbacks of the inputs, the worker and the publisher run in different threads; each method takes the
lock for a moment and never waits for inference. Times are arguments: `now_ns` is ROS time (the clock
of the stamps), `monotonic_ns` is the computer's.
"""
# long: every method works on one state under one lock; in two files they would share both.

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable

import numpy as np
from numpy.typing import NDArray

from lightvla_ros.core.chunk_schedule import ChunkSchedule, RemainingSteps
from lightvla_ros.core.config import NodeConfig
from lightvla_ros.core.errors import ChunkError, InstructionError, ObservationError, WorkerError
from lightvla_ros.core.frame_pairing import Frame, StampedObservation
from lightvla_ros.core.metrics import Latencies, Window
from lightvla_ros.core.observation import ActionChunk
from lightvla_ros.core.output import Command, CommandMaker, Output
from lightvla_ros.core.policy import PolicySpec
from lightvla_ros.core.sensor_inputs import SensorInputs
from lightvla_ros.core.stops import Stops
from lightvla_ros.core.watchdog import ClockGuard, ClockState, StopReason

_NO_INSTRUCTION = StopReason("no_instruction", "waiting for an instruction")
_DISABLED = StopReason("disabled", "commands are disabled; call ~/enable to let the robot move")
_INACTIVE = StopReason("inactive", "the node is not active")
_NO_ACTION = StopReason("no_action", "no action is due: no chunk yet, or inference is too slow")
_AWAITING_CHUNK = StopReason("awaiting_chunk", "standing still while the next chunk is inferred (mode sync)")
# Reasons to stand still that the next good chunk lifts, and those that only a reset does.
_PASSING = frozenset({"observation", "worker"})
_FAULTS = frozenset({"fault", "chunk"})


class ControlLoop:
    """Everything between the messages that come in and those that go out.

    Args:
        config: the node's configuration.
        spec: what the policy needs and gives.
        check_instruction: raises `InstructionError` for an instruction the policy cannot use.

    Attributes:
        active: whether inputs are taken and anything may be published.
        enabled: whether commands may leave the node.
        instruction: what the robot is told to do; empty without one, and while it is being checked.
        epoch: counts whatever makes earlier chunks void: an instruction, a reset, a clock jump.
        latencies: how long stages took, and how old observations were at each step of their way.
        retained: visual tokens retained in each of the newest chunks.

    Raises:
        ConfigError: a limit does not fit the policy's actions.
    """

    def __init__(
        self, *, config: NodeConfig, spec: PolicySpec, check_instruction: Callable[[str], None]
    ) -> None:
        self._lock = threading.RLock()
        self._spec = spec
        self._check_instruction = check_instruction
        self._counters: Counter[str] = Counter()
        self._inputs = SensorInputs(spec.camera_names, config, self._counters)
        self._schedule = ChunkSchedule()
        self._commands = CommandMaker(config, len(spec.action_names))
        self._clock = ClockGuard(jump_ns=0, stopped_ns=0)
        self._requested = ""
        self._instructed_ns = 0
        self._asked_epoch: int | None = None
        self._published_stamp_ns = 0
        self._stops = Stops()
        self.active = False
        self.enabled = False
        self.instruction = ""
        self.epoch = 0
        self.latencies = Latencies()
        self.retained = Window()
        self.apply(config)

    def apply(self, config: NodeConfig) -> None:
        """Take over the values that may change while running.

        Raises:
            ConfigError: a limit does not fit the policy's actions; nothing was changed.
        """
        with self._lock:
            self._commands.apply(config)
            self._config = config
            self._inputs.apply(config)
            self._schedule.config = config.schedule
            self._clock.jump_ns = round(config.clock_jump_s * 1e9)
            self._clock.stopped_ns = round(config.stale_after_s * 1e9)

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
            self._stops.lift({"estop"})
            self._clear(now_ns)

    def enable(self, enabled: bool) -> None:
        """Let commands out, or not."""
        with self._lock:
            self.enabled = enabled
            self._commands.forget_gripper()

    def instruct(self, text: str, now_ns: int) -> None:
        """Take an instruction: a new one drops everything of the old one, an empty one stops.

        Raises:
            InstructionError: the policy cannot use it; the robot stays stopped.
        """
        text = text.strip()
        with self._lock:
            self._instructed_ns = now_ns
            if text == self._requested:
                return
            self._requested, self.instruction = text, ""
            self._stops.lift({"instruction"})
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
            pair = self._inputs.add_frame(camera, frame, now_ns)
            self.latencies.note("received", now_ns - frame.stamp_ns)
            if pair is None:
                return None
            self.latencies.note("paired", now_ns - pair.stamp_ns)
            proprio = self._inputs.proprio
            if proprio is None or not self._wants(pair.stamp_ns, now_ns):
                return None
            self._asked_epoch = self.epoch
            return pair.observation(proprio=proprio, instruction=self.instruction, epoch=self.epoch)

    def add_proprio(self, proprio: NDArray[np.float64], stamp_ns: int, now_ns: int) -> None:
        """Take the robot's state in, float64 [P], finite.

        Raises:
            ObservationError: the stamp is in the future.
        """
        with self._lock:
            self._inputs.add_proprio(proprio, stamp_ns, now_ns)

    def refuse(self, name: str, message: str) -> None:
        """Note an input message that cannot be used; motion stops until a usable one comes."""
        with self._lock:
            self._inputs.refuse(name, message)

    def block(self, code: str, message: str) -> None:
        """Forbid motion for a reason found elsewhere, until `unblock` (or `reset`, for a fault)."""
        with self._lock:
            self._stops.add(StopReason(code, message))

    def unblock(self, code: str) -> None:
        """Lift a reason; unknown ones are ignored."""
        with self._lock:
            self._stops.lift({code})

    def accept(self, chunk: ActionChunk, now_ns: int) -> bool:
        """Schedule a finished chunk.

        Returns:
            Whether it was taken; one of an older epoch or all in the past is not.

        Raises:
            ChunkError: the chunk is misshapen or not finite.
        """
        with self._lock:
            if chunk.epoch == self._asked_epoch:
                self._asked_epoch = None
            _check_shape(chunk, self._spec)
            taken = self.active and self._schedule.replace(chunk, now_ns)
            self._counters["chunks" if taken else "chunks_dropped"] += 1
            if chunk.epoch == self.epoch:
                self._stops.lift(_PASSING)
            for stage, milliseconds in chunk.timings_ms.items():
                self.latencies.note(stage, milliseconds * 1e6)
            self.latencies.note("scheduled", now_ns - chunk.stamp_ns)
            if chunk.keep_masks:
                self.retained.add(chunk.num_retained)
            return taken

    def fail(self, error: Exception) -> None:
        """Note a failure: bad observations and lost workers last until a good chunk, others until `reset`."""
        with self._lock:
            code = _failure_code(error)
            self._asked_epoch = None
            self._counters[f"failed_{code}"] += 1
            self._stops.add(StopReason(code, str(error)))

    def tick(self, now_ns: int, monotonic_ns: int) -> Command:
        """Say what to publish now; called at the command rate."""
        with self._lock:
            self._watch_clock(now_ns, monotonic_ns)
            problem = self._problem(now_ns)
            if problem is not None:
                self._schedule.reset(self.epoch)
            permitted = self.active and self.enabled and bool(self.instruction)
            step = self._schedule.due(now_ns) if permitted else None
            command = self._commands.make(
                step,
                None if step is None else self._ahead(now_ns),
                permitted=permitted,
                proprio=self._inputs.proprio,
                now_ns=now_ns,
                monotonic_ns=monotonic_ns,
            )
            self._counters[command.output.value] += 1
            self._stops.note(problem or self._idle_reason(command.output))
            return command

    def remaining(self, now_ns: int) -> RemainingSteps | None:
        """Return the steps still ahead, None unless active and instructed, with a chunk and no problem."""
        with self._lock:
            if not self.active or not self.instruction or self._problem(now_ns):
                return None
            return self._schedule.remaining(now_ns)

    def published(self, command: Command, now_ns: int) -> None:
        """Note that a command that moves went out; the first of a chunk tells its observation's age."""
        with self._lock:
            if command.stamp_ns != self._published_stamp_ns:
                self._published_stamp_ns = command.stamp_ns
                self.latencies.note("published", now_ns - command.stamp_ns)

    def count(self, name: str, number: int = 1) -> None:
        """Add to a counter."""
        with self._lock:
            self._counters[name] += number

    def counts(self) -> dict[str, int]:
        """Return a copy of the counters."""
        with self._lock:
            return dict(self._counters)

    def take_edges(self) -> Iterable[StopReason | None]:
        """Take out why motion stopped (or, None, went on) since the last call, oldest first."""
        with self._lock:
            edges = list(self._stops.edges)
            self._stops.edges.clear()
            return edges

    @property
    def stop_reason(self) -> StopReason | None:
        """Why the robot did not move at the last tick; None when it did."""
        return self._stops.reason if self.active else _INACTIVE

    def _ahead(self, now_ns: int) -> RemainingSteps | None:
        """The steps that a controller can still be told of: one that begins at once would make it jump."""
        if self._config.command.type != "jtc_chunk":
            return None
        return self._schedule.remaining(now_ns + round(1e9 / self._config.command_rate_hz))

    def _wants(self, stamp_ns: int, now_ns: int) -> bool:
        """Whether to infer now: it is time, and nothing forbids it that a chunk cannot mend."""
        stopped = self._stops.first(other_than=_PASSING) or self._inputs.problem(now_ns)
        stopped = stopped or self._stale_instruction(now_ns)
        if stopped or not self.instruction or not self._schedule.wants(stamp_ns, now_ns):
            return False
        # Where the moment is chosen, a second observation behind the one in flight would come too early.
        return self._config.schedule.mode == "continuous" or self._asked_epoch != self.epoch

    def _clear(self, now_ns: int) -> None:
        self._inputs.forget_sizes()
        self._stops.lift(_FAULTS | _PASSING)
        self._forget_inputs(now_ns)

    def _problem(self, now_ns: int) -> StopReason | None:
        return self._stops.first() or self._inputs.problem(now_ns) or self._stale_instruction(now_ns)

    def _stale_instruction(self, now_ns: int) -> StopReason | None:
        limit_s, age_s = self._config.instruction_timeout_s, (now_ns - self._instructed_ns) / 1e9
        if not limit_s or not self.instruction or age_s <= limit_s:
            return None
        return StopReason(
            "instruction_stale",
            f"the instruction is {age_s:.2f} s old; expected it again within instruction_timeout_s = "
            f"{limit_s:g} s. Fix: publish it again, at a rate",
        )

    def _idle_reason(self, output: Output) -> StopReason | None:
        if not self.instruction:
            return _NO_INSTRUCTION
        if not self.enabled:
            return _DISABLED
        if output is Output.MOVE:
            return None
        return _AWAITING_CHUNK if self._config.schedule.mode == "sync" else _NO_ACTION

    def _watch_clock(self, now_ns: int, monotonic_ns: int) -> None:
        clock = self._clock.update(now_ns, monotonic_ns)
        if clock is ClockState.JUMPED:
            self._counters["clock_jumps"] += 1
            self._instructed_ns = now_ns
            self._forget_inputs(now_ns)
            self._stops.note(StopReason("clock_jump", "ROS time jumped; everything scheduled was dropped"))
        if clock is ClockState.STOPPED:
            self.block("clock_stopped", "ROS time stands still; is the simulation paused or gone?")
        else:
            self.unblock("clock_stopped")

    def _forget_inputs(self, now_ns: int) -> None:
        self._inputs.restart(now_ns)
        self._commands.forget_motion()
        self._new_epoch()

    def _new_epoch(self) -> None:
        self.epoch += 1
        self._schedule.reset(self.epoch)
        self._commands.forget_gripper()


def _check_shape(chunk: ActionChunk, spec: PolicySpec) -> None:
    expected = (spec.chunk_size, len(spec.action_names))
    if chunk.actions.shape != expected:
        raise ChunkError(
            "action chunk",
            got=f"actions of shape {chunk.actions.shape}",
            expected=f"{expected}: {spec.chunk_size} steps of {list(spec.action_names)}",
            fix="the engine is another than its manifest says: run `lightvla verify`, then call ~/reset",
        )


def _failure_code(error: Exception) -> str:
    codes = {ObservationError: "observation", WorkerError: "worker", ChunkError: "chunk"}
    return next((code for kind, code in codes.items() if isinstance(error, kind)), "fault")
