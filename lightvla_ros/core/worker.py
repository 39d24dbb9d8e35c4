"""One thread that answers the newest observation and never dies of an exception."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from lightvla_ros.core.observation import ActionChunk, Observation

_log = logging.getLogger(__name__)


class InferenceWorker:
    """Run a policy in its own thread; an observation that was not begun is replaced by a newer one.

    Args:
        predict: the policy's `predict_chunk`; called in the worker's thread only.
        on_chunk: takes the observation and its chunk, in the worker's thread, after each inference.
        on_error: takes what `predict` or `on_chunk` raised, in the worker's thread.

    Attributes:
        replaced: observations that were never begun, because a newer one came.
        completed: inferences whose chunk was taken by `on_chunk`.
        failed: inferences that ended in `on_error`.
    """

    def __init__(
        self,
        *,
        predict: Callable[[Observation], ActionChunk],
        on_chunk: Callable[[Observation, ActionChunk], None],
        on_error: Callable[[Exception], None],
    ) -> None:
        self._predict = predict
        self._on_chunk = on_chunk
        self._on_error = on_error
        self._wake = threading.Condition()
        self._pending: Observation | None = None
        self._running = False
        self._thread: threading.Thread | None = None
        self.replaced = 0
        self.completed = 0
        self.failed = 0

    def start(self) -> None:
        """Start the thread; a worker starts once."""
        self._running = True
        self._thread = threading.Thread(target=self._run, name="inference", daemon=True)
        self._thread.start()

    def submit(self, observation: Observation) -> None:
        """Hand over the newest observation; never waits for an inference."""
        with self._wake:
            self.replaced += self._pending is not None
            self._pending = observation
            self._wake.notify()

    def clear(self) -> None:
        """Drop the observation that was not begun yet."""
        with self._wake:
            self._pending = None

    def stop(self, timeout_s: float) -> bool:
        """End the thread after the inference in progress.

        Returns:
            Whether it ended in time.
        """
        with self._wake:
            self._running = False
            self._pending = None
            self._wake.notify()
        if self._thread is None:
            return True
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (observation := self._next()) is not None:
            try:
                self._on_chunk(observation, self._predict(observation))
                self.completed += 1
            except Exception as error:  # noqa: BLE001  # whatever a backend raises must stop motion, not the thread
                self.failed += 1
                self._report(error)

    def _next(self) -> Observation | None:
        with self._wake:
            self._wake.wait_for(lambda: self._pending is not None or not self._running)
            observation, self._pending = self._pending, None
            return observation if self._running else None

    def _report(self, error: Exception) -> None:
        try:
            self._on_error(error)
        except Exception:  # noqa: BLE001  # the thread outlives even a broken reporter
            _log.exception("reporting a failed inference failed too")
