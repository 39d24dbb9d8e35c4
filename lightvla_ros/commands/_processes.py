"""Child processes that never outlive the command that started them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lightvla_ros.core.errors import LightVlaError

# How long a child gets to obey each signal before the next, harsher one.
PATIENCE_S = {signal.SIGINT: 5.0, signal.SIGTERM: 2.0, signal.SIGKILL: 2.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Child:
    """A Python module running as a process of its own, its output in a log file."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def is_alive(self) -> bool:
        """Whether the process still runs."""
        return self.process.poll() is None

    def check(self) -> None:
        """Raise `LightVlaError` with the end of the log when the process is gone."""
        if not self.is_alive:
            raise self.failure(f"exit status {self.process.returncode}")

    def failure(self, got: str) -> LightVlaError:
        """Return an error about this process with the end of its log."""
        lines = self.log.read_text(errors="replace").splitlines()[-15:]
        tail = "\n  ".join(lines) or "(nothing)"
        return LightVlaError(
            f"{self.name} failed",
            got=got,
            expected="a running node",
            fix=f"see the end of its log {self.log}:\n  {tail}",
        )


@contextlib.contextmanager
def running(modules: Mapping[str, Sequence[str]], *, log_directory: Path) -> Iterator[dict[str, Child]]:
    """Run Python modules as processes with the caller's environment and end them on leaving.

    Args:
        modules: module name -> its command line arguments.
        log_directory: where `<last part of the module's name>.log` is written.

    Yields:
        Module name -> child.
    """
    children: dict[str, Child] = {}
    try:
        for module, arguments in modules.items():
            children[module] = _start(module, arguments, log_directory)
        yield children
    finally:
        processes = [child.process for child in children.values()]
        try:
            _stop(processes, PATIENCE_S)
        except KeyboardInterrupt:
            _stop(processes, {signal.SIGKILL: PATIENCE_S[signal.SIGKILL]})
            raise


def ros_arguments(parameters: Mapping[str, object]) -> list[str]:
    """Return the arguments that give a node its parameters.

    Args:
        parameters: name -> value; what is neither a number nor a truth value is passed as text.
    """
    settings = [word for name, value in parameters.items() for word in ("-p", f"{name}:={_yaml(value)}")]
    return ["--ros-args", *settings]


def _yaml(value: object) -> str:
    # Quoted, because "on" or "1" bare would be no text to YAML.
    return json.dumps(value if isinstance(value, bool | int | float) else str(value))


def _start(module: str, arguments: Sequence[str], log_directory: Path) -> Child:
    name = module.rpartition(".")[2]
    log = log_directory / f"{name}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
            # Its own session: a terminal's Ctrl-C reaches the command alone, which then ends its children.
            start_new_session=True,
        )
    return Child(name=name, process=process, log=log)


def _stop(processes: list[subprocess.Popen[bytes]], patience: dict[signal.Signals, float]) -> None:
    for number, patience_s in patience.items():
        alive = [process for process in processes if process.poll() is None]
        for process in alive:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
        deadline = time.monotonic() + patience_s
        for process in alive:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
