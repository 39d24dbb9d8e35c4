"""The worker: newest observation wins, and no exception ends it."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from lightvla_ros.core.errors import EngineError
from lightvla_ros.core.observation import ActionChunk, Observation
from lightvla_ros.core.worker import InferenceWorker

TIMEOUT_S = 10.0


def observation(stamp_ns: int) -> Observation:
    return Observation(images={}, proprio=np.zeros(8), instruction="go", stamp_ns=stamp_ns)


class GatedPolicy:
    """A policy whose every inference waits until the test lets it go on."""

    def __init__(self) -> None:
        self.begun: queue.Queue[int] = queue.Queue()
        self.go = threading.Semaphore(0)

    def predict_chunk(self, seen: Observation) -> ActionChunk:
        self.begun.put(seen.stamp_ns)
        assert self.go.acquire(timeout=TIMEOUT_S)
        if seen.stamp_ns < 0:
            raise EngineError("engine broke")
        return ActionChunk(actions=np.zeros((1, 7), np.float32), stamp_ns=seen.stamp_ns, step_period_ns=1)


@contextmanager
def running(policy: GatedPolicy) -> Iterator[tuple[InferenceWorker, queue.Queue]]:
    results: queue.Queue = queue.Queue()
    worker = InferenceWorker(
        predict=policy.predict_chunk,
        on_chunk=lambda _, chunk: results.put(chunk.stamp_ns),
        on_error=results.put,
    )
    worker.start()
    yield worker, results
    policy.go.release(100)
    assert worker.stop(TIMEOUT_S)


def test_an_observation_not_begun_is_replaced_by_a_newer_one() -> None:
    policy = GatedPolicy()
    with running(policy) as (worker, results):
        worker.submit(observation(1))
        assert policy.begun.get(timeout=TIMEOUT_S) == 1
        worker.submit(observation(2))
        worker.submit(observation(3))
        policy.go.release(2)
        assert [results.get(timeout=TIMEOUT_S) for _ in range(2)] == [1, 3]
        assert worker.replaced == 1


def test_an_exception_is_reported_and_the_next_observation_answered() -> None:
    policy = GatedPolicy()
    policy.go.release(2)
    with running(policy) as (worker, results):
        worker.submit(observation(-1))
        assert isinstance(results.get(timeout=TIMEOUT_S), EngineError)
        worker.submit(observation(5))
        assert results.get(timeout=TIMEOUT_S) == 5
    assert (worker.failed, worker.completed) == (1, 1)


def test_a_failing_report_does_not_end_the_worker() -> None:
    policy = GatedPolicy()
    policy.go.release(2)
    done: queue.Queue = queue.Queue()

    def refuse(error: Exception) -> None:
        raise RuntimeError("the reporter broke") from error

    worker = InferenceWorker(
        predict=policy.predict_chunk, on_chunk=lambda _, chunk: done.put(chunk.stamp_ns), on_error=refuse
    )
    worker.start()
    worker.submit(observation(-1))
    policy.begun.get(timeout=TIMEOUT_S)
    worker.submit(observation(2))
    assert done.get(timeout=TIMEOUT_S) == 2
    assert worker.stop(TIMEOUT_S)


def test_stopping_drops_what_was_not_begun() -> None:
    policy = GatedPolicy()
    with running(policy) as (worker, results):
        worker.submit(observation(1))
        policy.begun.get(timeout=TIMEOUT_S)
        worker.submit(observation(2))
        assert not worker.stop(0.0), "one inference is still running"
        policy.go.release(1)
    assert results.get(timeout=TIMEOUT_S) == 1
    assert policy.begun.empty()


def test_cleared_observations_are_never_begun() -> None:
    policy = GatedPolicy()
    with running(policy) as (worker, results):
        worker.submit(observation(1))
        policy.begun.get(timeout=TIMEOUT_S)
        worker.submit(observation(2))
        worker.clear()
        policy.go.release(1)
        assert results.get(timeout=TIMEOUT_S) == 1
    assert policy.begun.empty()
