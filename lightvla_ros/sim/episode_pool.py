"""Episodes in parallel: processes that each keep a world, and end when the one that started them does."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any, TypeVar

R = TypeVar("R")


def run_episodes(
    episode: Callable[[int], R],
    episodes: int,
    *,
    workers: int,
    set_up: Callable[..., None],
    arguments: tuple[Any, ...],
) -> Iterator[R]:
    """Run numbered episodes in processes, yielding results as they come.

    Args:
        episode: a function of a module, called with 0 .. episodes - 1.
        episodes: how many.
        workers: processes.
        set_up: called once in each process before its first episode; must not fail, because the pool does
            not tell why it did.
        arguments: of `set_up`; must be picklable.

    Raises:
        Exception: what an episode raised; the others are given up.
    """
    pool = ProcessPoolExecutor(
        workers,
        # Rendering contexts do not survive a fork.
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start,
        initargs=(set_up, arguments),
    )
    with pool:
        running = [pool.submit(episode, number) for number in range(episodes)]
        try:
            for ended in as_completed(running):
                yield ended.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _start(set_up: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    # One rendering thread each, as the processes already fill the cores.
    os.environ.setdefault("LP_NUM_THREADS", "1")
    threading.Thread(target=_end_with_parent, daemon=True).start()
    set_up(*arguments)


def _end_with_parent() -> None:
    """Leave when the parent is gone: a pool's processes would otherwise wait for work forever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
