"""Episodes in parallel: processes that keep what runs them, and end when the one that started them does."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from typing import Any, Protocol, TypeVar

R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


class EpisodeRunner(Protocol[R_co]):
    """What a process keeps from episode to episode, such as a world and a policy."""

    def run(self, number: int) -> R_co:
        """Run one episode."""
        ...

    def close(self) -> None:
        """Free what it holds."""
        ...


def run_episodes(
    make_runner: Callable[[], EpisodeRunner[R]],
    numbers: Iterable[int],
    *,
    workers: int,
    lost: Callable[[int, str], R] | None = None,
) -> Iterator[R]:
    """Run numbered episodes, yielding results as they come: in order with one worker, else in any order.

    Args:
        make_runner: called once in each process before its first episode; must be picklable where there
            are several.
        numbers: of the episodes, begun in this order.
        workers: processes; 1 runs the episodes in this one.
        lost: makes the result of an episode whose process ended, from its number and what is known; None
            lets that end everything.

    Raises:
        Exception: what `make_runner` or an episode raised; the others are given up.
    """
    if workers > 1:
        yield from _run_in_processes(make_runner, numbers, workers, lost)
        return
    with closing(make_runner()) as runner:
        for number in numbers:
            yield runner.run(number)


def _run_in_processes(
    make_runner: Callable[[], EpisodeRunner[R]],
    numbers: Iterable[int],
    workers: int,
    lost: Callable[[int, str], R] | None,
) -> Iterator[R]:
    # A pool of one process each: when one dies, it is known which episode it took along.
    idle = [_Pool(make_runner) for _ in range(workers)]
    running: dict[Future[R], tuple[_Pool, int]] = {}
    waiting = iter(numbers)
    try:
        while True:
            while idle and (number := next(waiting, None)) is not None:
                pool = idle.pop()
                running[pool.submit(_run, number)] = pool, number
            if not running:
                return
            for ended in wait(running, return_when=FIRST_COMPLETED).done:
                pool, number = running.pop(ended)
                try:
                    result = ended.result()
                except BrokenProcessPool as error:
                    if lost is None:
                        raise
                    pool.shutdown()
                    pool = _Pool(make_runner)
                    result = lost(number, f"its process ended: {error}")
                idle.append(pool)
                yield result
    finally:
        for pool in [*idle, *(pool for pool, _ in running.values())]:
            pool.shutdown(wait=False, cancel_futures=True)


class _Pool(ProcessPoolExecutor):
    def __init__(self, make_runner: Callable[[], EpisodeRunner[Any]]) -> None:
        # Rendering contexts do not survive a fork.
        spawn = multiprocessing.get_context("spawn")
        super().__init__(1, mp_context=spawn, initializer=_start, initargs=(make_runner,))


class _Process:
    """What one process of a pool keeps."""

    make_runner: Callable[[], EpisodeRunner[Any]]
    runner: EpisodeRunner[Any] | None = None


def _start(make_runner: Callable[[], EpisodeRunner[Any]]) -> None:
    # One rendering thread each, as the processes already fill the cores.
    os.environ.setdefault("LP_NUM_THREADS", "1")
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # Not made here: a pool does not tell why this function failed.
    _Process.make_runner = make_runner


def _run(number: int) -> Any:
    if _Process.runner is None:
        _Process.runner = _Process.make_runner()
    return _Process.runner.run(number)


def _end_with_parent() -> None:
    """Leave when the parent is gone: a pool's processes would otherwise wait for work forever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
