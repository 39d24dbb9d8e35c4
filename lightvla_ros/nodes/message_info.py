"""When a message was sent and received, also where rclpy does not tell."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from rclpy.subscription import Subscription


def informed(callback: Callable[[Any, Any], None]) -> Callable[..., None]:
    """Return what to subscribe with so that `callback` gets a message and its info.

    Humble has no info: a message then counts as sent when it is taken in.
    """
    if hasattr(Subscription, "CallbackType"):
        return callback

    def with_arrival(message: Any) -> None:
        now_ns = time.time_ns()
        callback(message, {"source_timestamp": now_ns, "received_timestamp": now_ns})

    return with_arrival
