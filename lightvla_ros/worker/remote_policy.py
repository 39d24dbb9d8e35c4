"""A policy whose inference runs in a process of its own, watched and restarted from here."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from lightvla_ros.core.errors import EngineError, LightVlaError, WorkerError
from lightvla_ros.core.observation import ActionChunk, Observation
from lightvla_ros.core.policy import Health, PolicySpec
from lightvla_ros.worker.channel import Channel, ChannelClosed
from lightvla_ros.worker.messages import Message, pack_observation, unpack_chunk, unpack_spec
from lightvla_ros.worker.restarts import RestartBudget

_END_TIMEOUT_S = 2.0


class _Process:
    """One life of the inference process.

    Args:
        options: keyword arguments of `load_policy`.
        problem: why it cannot be asked yet.

    Raises:
        WorkerError: it cannot be started.

    Attributes:
        problem: why it cannot be asked; None when it can.
    """

    def __init__(self, options: Mapping[str, Any], problem: LightVlaError | None = None) -> None:
        self.problem = problem
        self._lock = threading.Lock()
        try:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError as error:
            raise _not_started(error) from error
        self._channel = Channel(ours)
        try:
            with theirs:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "lightvla_ros.worker", str(theirs.fileno())],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                )
            with contextlib.suppress(ChannelClosed):  # it has ended already; who receives notices
                self._channel.send(options)
        except OSError as error:
            self._channel.close()
            raise _not_started(error) from error

    @property
    def pid(self) -> int:
        return self._process.pid

    def load(self, timeout_s: float) -> PolicySpec:
        """Wait until it can be asked; a process that cannot load is ended."""
        try:
            return unpack_spec(self._receive(timeout_s)[0])
        except BaseException as error:
            self.end()
            if isinstance(error, WorkerError):  # nothing was asked yet, and nobody restarts a first one
                raise _not_loaded(error) from error
            raise

    def ask(self, observation: Observation, timeout_s: float) -> ActionChunk:
        """Have one observation answered; a process that does not answer is killed."""
        begun = time.perf_counter()
        try:
            chunk = unpack_chunk(*self._exchange(observation, timeout_s))
        except WorkerError as error:
            self._note(error)
            self._process.kill()
            self._process.wait()
            raise
        elapsed_ms = (time.perf_counter() - begun) * 1e3
        transport_ms = elapsed_ms - sum(chunk.timings_ms.values())
        return replace(chunk, timings_ms={**chunk.timings_ms, "transport": transport_ms})

    def wait(self) -> None:
        """Wait for its end, which may be a long life away, and note it as its problem."""
        self._process.wait()
        self._channel.close()
        self._note(self._gone())

    def end(self) -> None:
        """Hang up, and kill what does not go by itself."""
        self._channel.close()
        try:
            self._process.wait(_END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _note(self, error: WorkerError) -> None:
        """Note the first error: who asks and who supervises may notice the same end."""
        with self._lock:
            self.problem = self.problem or error

    def _exchange(self, observation: Observation, timeout_s: float) -> Message:
        try:
            self._channel.send(*pack_observation(observation))
        except ChannelClosed:
            raise self._gone() from None
        return self._receive(timeout_s)

    def _receive(self, timeout_s: float) -> Message:
        try:
            return self._channel.receive(timeout_s)
        except ChannelClosed:
            raise self._gone() from None
        except TimeoutError:
            raise WorkerError(
                "inference process",
                got=f"no answer for {timeout_s:g} s",
                expected="an answer within worker.timeout_s",
                fix="it is restarted; raise worker.timeout_s if the model is that slow",
            ) from None

    def _gone(self) -> WorkerError:
        try:
            code = self._process.wait(_END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            code = None
        return WorkerError(
            "inference process",
            got="a closed connection" if code is None else f"exit code {code}",
            expected="a running process",
            fix="it is restarted; its last output is in the log",
        )


def _not_loaded(error: WorkerError) -> WorkerError:
    return WorkerError(
        error.what,
        got=error.got,
        expected="a policy that is loaded",
        fix="look for its output in the log; free memory where the kernel killed it (`dmesg`)",
    )


def _not_started(error: Exception) -> WorkerError:
    return WorkerError(
        "inference process",
        got=f"not started: {error}",
        expected="a running process",
        fix="free memory or mend what it names; it is tried again a few times",
    )


class RemotePolicy:
    """`core.policy.Policy` over a supervised process.

    The thread that calls `predict_chunk` waits for the answer without holding Python's lock. Another one
    waits for the end of the process, asked or not, and starts it again; meanwhile `predict_chunk` raises.

    Args:
        options: keyword arguments of `lightvla_ros.app.load_policy`, JSON values.
        check_instruction: raises `InstructionError`; runs in this process.
        start_timeout_s: how long loading may take.
        timeout_s: how long an answer may take before the process counts as hung.
        restarts: how often it is started again.

    Raises:
        LightVlaError: the policy cannot be loaded; as `load_policy` raises it.
    """

    def __init__(
        self,
        options: Mapping[str, Any],
        *,
        check_instruction: Callable[[str], object],
        start_timeout_s: float = 600.0,
        timeout_s: float = 5.0,
        restarts: RestartBudget | None = None,
    ) -> None:
        self._options = dict(options)
        self._check_instruction = check_instruction
        self._start_timeout_s, self._timeout_s = start_timeout_s, timeout_s
        self._budget = restarts or RestartBudget()
        self._closing = threading.Event()
        self._lock = threading.Lock()  # no process is started behind the back of `close`
        self._restarts = 0
        self._process = _Process(self._options)
        self._spec = self._process.load(start_timeout_s)
        self._supervisor = threading.Thread(target=self._supervise, name="inference-supervisor", daemon=True)
        self._supervisor.start()

    @property
    def spec(self) -> PolicySpec:
        """What the policy needs and gives."""
        return self._spec

    @property
    def health(self) -> Health:
        """Whether it can be asked: a `WorkerError` while it is restarted, another when it was given up."""
        return Health(self._process.problem, self._restarts)

    @property
    def pid(self) -> int | None:
        """Process id of the inference process; None while there is none to ask."""
        process = self._process
        return None if process.problem else process.pid

    def check_instruction(self, instruction: str) -> None:
        """Raise `InstructionError` when the instruction cannot be used."""
        self._check_instruction(instruction)

    def predict_chunk(self, observation: Observation) -> ActionChunk:
        """Answer one observation; see `core.policy.Policy`. One caller at a time.

        Raises:
            WorkerError: the process ended, hung or is being restarted.
            EngineError: it was given up, or the policy failed.
        """
        process = self._process
        if process.problem is not None:
            raise process.problem
        return process.ask(observation, self._timeout_s)

    def close(self) -> None:
        """End the process; the policy cannot be used afterwards."""
        with self._lock:
            self._closing.set()
        self._process.end()
        self._supervisor.join()

    def _supervise(self) -> None:
        while True:
            self._process.wait()
            if self._closing.is_set():
                return
            delay_s = self._budget.next_delay_s(time.monotonic())
            if delay_s is None:
                self._process.problem = self._given_up()
                return
            self._closing.wait(delay_s)
            self._restart()

    def _restart(self) -> None:
        try:
            with self._lock:
                if self._closing.is_set():
                    return
                self._process = _Process(self._options, self._process.problem)
            self._process.load(self._start_timeout_s)
            self._restarts += 1
            self._process.problem = None
        except LightVlaError as error:
            # Not the error itself: whatever it is, it lasts only until a restart succeeds.
            self._process.problem = _not_started(error)

    def _given_up(self) -> EngineError:
        return EngineError(
            "inference process",
            got=f"{self._budget.max_restarts} restarts within a minute, the last after: "
            f"{self._process.problem}",
            expected="a process that stays up",
            fix="look for its output in the log, then cleanup and configure the node again",
        )
