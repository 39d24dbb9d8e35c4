"""Episodes on the machines of a Ray cluster; needs the extra `ray`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from lightvla_ros.core.errors import ConfigError
from lightvla_ros.sim.episode_pool import EpisodeRunner

R = TypeVar("R")


@dataclass(frozen=True, slots=True, kw_only=True)
class RayCluster:
    """Where the episodes run.

    Attributes:
        address: of the cluster; "auto" finds the one of this machine, "local" starts one for as long as
            the episodes take.
        cpus: cores that each worker asks for.
        gpus: GPUs that each worker asks for; a share lets several use one.
    """

    address: str = "auto"
    cpus: float = 1.0
    gpus: float = 0.0

    def run_episodes(
        self,
        make_runner: Callable[[], EpisodeRunner[R]],
        numbers: Iterable[int],
        *,
        workers: int,
        lost: Callable[[int, str], R],
    ) -> Iterator[R]:
        """Run numbered episodes in Ray actors, yielding results in any order.

        Args:
            make_runner: called once in each actor, on a machine that has this package and the engine.
            numbers: of the episodes, begun in this order.
            workers: actors.
            lost: makes the result of an episode whose actor ended, from its number and what is known.

        Raises:
            ConfigError: Ray is not installed, or there is no such cluster.
            Exception: what `make_runner` or an episode raised; the others are given up.
        """
        ray = _connect(self.address)
        Actor = ray.remote(num_cpus=self.cpus, num_gpus=self.gpus)(_Actor)
        running: dict[Any, tuple[Any, int]] = {}
        waiting = iter(numbers)
        idle = [Actor.remote(make_runner) for _ in range(workers)]
        try:
            while True:
                while idle and (number := next(waiting, None)) is not None:
                    actor = idle.pop()
                    running[actor.run.remote(number)] = actor, number
                if not running:
                    return
                (ended,), _ = ray.wait(list(running), num_returns=1)
                actor, number = running.pop(ended)
                try:
                    result = ray.get(ended)
                except ray.exceptions.RayActorError as error:
                    actor = Actor.remote(make_runner)
                    result = lost(number, f"its actor ended: {error}")
                except ray.exceptions.RayTaskError as error:
                    raise error.cause from error
                idle.append(actor)
                yield result
        finally:
            ray.shutdown()


class _Actor:
    """What an actor keeps; the runner is made at the first episode, so that its error is told."""

    def __init__(self, make_runner: Callable[[], EpisodeRunner[Any]]) -> None:
        self._make_runner = make_runner
        self._runner: EpisodeRunner[Any] | None = None

    def run(self, number: int) -> Any:
        if self._runner is None:
            self._runner = self._make_runner()
        return self._runner.run(number)


def _connect(address: str) -> Any:
    try:
        import ray
    except ImportError as error:
        raise ConfigError(
            "Ray", got=str(error), expected="the package ray", fix="pip install 'lightvla_ros[ray]'"
        ) from error
    try:
        ray.init(address=address, log_to_driver=False, logging_level="error", include_dashboard=False)
    except Exception as error:  # noqa: BLE001  # Ray raises many kinds where a cluster cannot be reached
        raise ConfigError(
            "Ray cluster",
            got=f"{address!r}: {error}",
            expected="the address of a running cluster, auto or local",
            fix="start one with `ray start --head`, or use --ray local",
        ) from error
    return ray
