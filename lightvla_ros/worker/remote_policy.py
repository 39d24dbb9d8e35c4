"""A policy whose inference runs in a process of its own, watched and restarted from here."""

from __future__ import annotations

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
from lightvla_ros.core.policy import PolicySpec
from lightvla_ros.worker.channel import Channel, ChannelClosed
from lightvla_ros.worker.messages import pack_observation, unpack_chunk, unpack_spec
from lightvla_ros.worker.restarts import RestartBudget

_END_TIMEOUT_S = 2.0


class _Process:
    """One life of the inference process."""

    def __init__(self, options: Mapping[str, Any], start_timeout_s: float) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            try:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "lightvla_ros.worker", str(theirs.fileno())],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                )
            except OSError as error:
                ours.close()
                raise _not_started(error) from error
        self._channel = Channel(ours)
        try:
            self._channel.send(options)
            self.spec: PolicySpec = unpack_spec(self._receive(start_timeout_s)[0])
        except BaseException:
            self.end()
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, observation: Observation, timeout_s: float) -> ActionChunk:
        begun = time.perf_counter()
        try:
            self._channel.send(*pack_observation(observation))
        except ChannelClosed:
            raise self._gone() from None
        chunk = unpack_chunk(*self._receive(timeout_s))
        elapsed_ms = (time.perf_counter() - begun) * 1e3
        transport_ms = elapsed_ms - sum(chunk.timings_ms.values())
        return replace(chunk, timings_ms={**chunk.timings_ms, "transport": transport_ms})

    def end(self) -> None:
        """Hang up, and kill what does not go by itself."""
        self._channel.close()
        try:
            self._process.wait(_END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def kill(self) -> None:
        self._process.kill()
        self.end()

    def _receive(self, timeout_s: float) -> tuple[dict[str, Any], dict[str, Any]]:
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


def _not_started(error: Exception) -> WorkerError:
    return WorkerError(
        "inference process",
        got=f"not started: {error}",
        expected="a running process",
        fix="free memory or mend what it names; it is tried again a few times",
    )


class RemotePolicy:
    """`core.policy.Policy` over a supervised process.

    The process that calls `predict_chunk` waits for the answer without holding Python's lock. When the
    inference process ends or hangs, that call and those that follow raise `WorkerError` until a
    restart, in a thread of its own, has succeeded.

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
        self._restarter: threading.Thread | None = None
        self._failure: LightVlaError | None = None
        self.restarts = 0
        self._process: _Process | None = self._start()
        self._spec = self._process.spec

    @property
    def spec(self) -> PolicySpec:
        """What the policy needs and gives."""
        return self._spec

    @property
    def pid(self) -> int | None:
        """Process id of the inference process; None while there is none."""
        process = self._process
        return process.pid if process else None

    def check_instruction(self, instruction: str) -> None:
        """Raise `InstructionError` when the instruction cannot be used."""
        self._check_instruction(instruction)

    def predict_chunk(self, observation: Observation) -> ActionChunk:
        """Answer one observation; see `core.policy.Policy`. One caller at a time.

        Raises:
            WorkerError: the process ended, hung or is being restarted.
        """
        process = self._process
        if process is None:
            raise self._failure or WorkerError("inference process", got="none", expected="a running one")
        try:
            return process.ask(observation, self._timeout_s)
        except WorkerError as error:
            self._process = None
            process.kill()
            self._restart_later(error)
            raise

    def close(self) -> None:
        """End the process; the policy cannot be used afterwards."""
        self._closing.set()
        if self._restarter is not None:
            self._restarter.join()
        process, self._process = self._process, None
        if process is not None:
            process.end()

    def _start(self) -> _Process:
        return _Process(self._options, self._start_timeout_s)

    def _restart_later(self, error: LightVlaError) -> None:
        delay_s = self._budget.next_delay_s(time.monotonic())
        if delay_s is None:
            self._give_up(error)
            return
        self._failure = error
        self._restarter = threading.Thread(
            target=self._restart, args=(delay_s,), name="inference-restart", daemon=True
        )
        self._restarter.start()

    def _restart(self, delay_s: float) -> None:
        while not self._closing.wait(delay_s):
            try:
                process = self._start()
            except LightVlaError as error:
                # Not the error itself: whatever it is, it lasts only until a restart succeeds.
                self._failure = _not_started(error)
                next_delay_s = self._budget.next_delay_s(time.monotonic())
                if next_delay_s is None:
                    self._give_up(error)
                    return
                delay_s = next_delay_s
                continue
            self.restarts += 1
            self._process = process
            return

    def _give_up(self, error: LightVlaError) -> None:
        self._failure = EngineError(
            "inference process",
            got=f"{self._budget.max_restarts} restarts within a minute, the last after: {error}",
            expected="a process that stays up",
            fix="look for its output in the log, then cleanup and configure the node again",
        )
