"""Processes that run episodes."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lightvla_ros.sim.episode_pool import run_episodes

# Two workers tell who they are and work on for a minute.
PROGRAM = """
import os, sys, time
from lightvla_ros.sim.episode_pool import run_episodes

def set_up(directory):
    os.chdir(directory)

def episode(number):
    open(str(os.getpid()), "w").close()
    time.sleep(60)

if __name__ == "__main__":
    list(run_episodes(episode, 2, workers=2, set_up=set_up, arguments=(sys.argv[1],)))
"""


def do_nothing(*_: object) -> None:
    pass


def refuse(number: int) -> int:
    if number == 1:
        raise ValueError(f"episode {number} is impossible")
    return number


def test_results_come_from_other_processes() -> None:
    results = run_episodes(_pid, 4, workers=2, set_up=do_nothing, arguments=())
    assert os.getpid() not in set(results)


def _pid(_: int) -> int:
    return os.getpid()


def test_what_an_episode_raises_is_raised_here() -> None:
    with pytest.raises(ValueError, match="episode 1 is impossible"):
        list(run_episodes(refuse, 3, workers=1, set_up=do_nothing, arguments=()))


def test_workers_do_not_outlive_a_killed_command(tmp_path: Path) -> None:
    program, told = tmp_path / "program.py", tmp_path / "told"
    program.write_text(PROGRAM)
    told.mkdir()
    command = subprocess.Popen([sys.executable, str(program), str(told)])
    wait_until(lambda: len(list(told.iterdir())) == 2)
    workers = [int(path.name) for path in told.iterdir()]
    command.kill()
    command.wait()
    wait_until(lambda: not any(is_alive(pid) for pid in workers))


def is_alive(pid: int) -> bool:
    with contextlib.suppress(ProcessLookupError, FileNotFoundError):
        os.kill(pid, 0)
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    return False


def wait_until(condition: Callable[[], bool], patience_s: float = 30.0) -> None:
    deadline = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
