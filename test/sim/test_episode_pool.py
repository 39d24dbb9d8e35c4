"""Processes that run episodes."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest

from lightvla_ros.sim.episode_pool import run_episodes

# Two workers tell who they are and work on for a minute.
PROGRAM = """
import os, sys, time
from lightvla_ros.sim.episode_pool import run_episodes

class Runner:
    def run(self, number):
        open(str(os.getpid()), "w").close()
        time.sleep(60)

def make():
    os.chdir(sys.argv[1])
    return Runner()

if __name__ == "__main__":
    list(run_episodes(make, range(2), workers=2))
"""


class Runner:
    """Tells its process and how many episodes it has run; refuses episode 13, dies in episode 99."""

    def __init__(self) -> None:
        self.episodes = 0
        self.closed = False

    def run(self, number: int) -> tuple[int, int, int]:
        if number == 13:
            raise ValueError("episode 13 is impossible")
        if number == 99:
            os._exit(3)
        self.episodes += 1
        return number, os.getpid(), self.episodes

    def close(self) -> None:
        self.closed = True


def test_several_workers_are_other_processes_that_keep_their_runner() -> None:
    results = list(run_episodes(Runner, range(6), workers=2))
    assert sorted(number for number, *_ in results) == list(range(6))
    processes = {pid for _, pid, _ in results}
    assert os.getpid() not in processes
    for process in processes:
        counts = [episodes for _, pid, episodes in results if pid == process]
        assert counts == list(range(1, len(counts) + 1))


def test_one_worker_is_this_process_and_closes_its_runner() -> None:
    runner = Runner()
    assert list(run_episodes(lambda: runner, [3, 1], workers=1)) == [(3, os.getpid(), 1), (1, os.getpid(), 2)]
    assert runner.closed


@pytest.mark.parametrize("workers", [1, 2])
def test_what_an_episode_raises_is_raised_here(workers: int) -> None:
    with pytest.raises(ValueError, match="episode 13 is impossible"):
        list(run_episodes(Runner, [1, 13, 2], workers=workers))


def test_what_making_the_runner_raises_is_raised_here() -> None:
    with pytest.raises(ZeroDivisionError):
        list(run_episodes(_cannot_be_made, [1], workers=2))


def _cannot_be_made() -> Runner:
    raise ZeroDivisionError


def _lost(number: int, why: str) -> tuple[int, int, str]:
    return number, 0, why


def test_an_episode_whose_process_dies_is_lost_alone() -> None:
    results = list(run_episodes(Runner, [1, 99, 2, 3], workers=2, lost=_lost))
    assert sorted(number for number, *_ in results) == [1, 2, 3, 99]
    (why,) = [why for number, _, why in results if number == 99]
    assert str(why).startswith("its process ended")


def test_without_a_way_to_tell_a_lost_episode_ends_everything() -> None:
    with pytest.raises(BrokenProcessPool):
        list(run_episodes(Runner, [99, 1], workers=2))


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
