"""A thread for work that nobody waits for."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")

_STOP_TIMEOUT_S = 5.0


class Background(Generic[Item]):
    """Handle items one after the other in a thread of its own; where it falls behind, the oldest are dropped.

    Args:
        name: of the thread.
        handle: called with each item, in that thread.
        on_error: takes what `handle` raised, in that thread; must not raise.
        size: how many items may wait.

    Attributes:
        dropped: items that were never handled.
    """

    def __init__(
        self,
        *,
        name: str,
        handle: Callable[[Item], None],
        on_error: Callable[[Exception], None],
        size: int = 8,
    ) -> None:
        self.dropped = 0
        self._handle = handle
        self._on_error = on_error
        self._items: queue.Queue[Item | None] = queue.Queue(maxsize=size)
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, item: Item) -> None:
        """Hand an item over; never waits. One caller at a time."""
        self._put(item)

    def stop(self) -> None:
        """End the thread after the item in progress; what waits is dropped."""
        while not self._items.empty():
            self._drop_oldest()
        self._put(None)
        self._thread.join(_STOP_TIMEOUT_S)

    def _put(self, item: Item | None) -> None:
        while True:
            try:
                self._items.put_nowait(item)
                return
            except queue.Full:
                self._drop_oldest()

    def _drop_oldest(self) -> None:
        try:
            self._items.get_nowait()
            self.dropped += 1
        except queue.Empty:
            pass  # the thread has just taken it

    def _run(self) -> None:
        while (item := self._items.get()) is not None:
            try:
                self._handle(item)
            except Exception as error:  # noqa: BLE001  # the thread outlives whatever one item does
                self._on_error(error)
