"""Ask a policy node for its parameters and its lifecycle state, and hear its diagnostics."""

from __future__ import annotations

import time
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.srv import GetState
from rcl_interfaces.srv import GetParameters
from rclpy.client import Client
from rclpy.node import Node
from rclpy.parameter import parameter_value_to_python
from rclpy.serialization import deserialize_message

from lightvla_ros.core.config import NodeConfig, parameters, with_values
from lightvla_ros.core.errors import ConfigError
from lightvla_ros.core.graph_survey import PolicyNode
from lightvla_ros.nodes import qos
from lightvla_ros.nodes.diagnostics import statuses_in
from lightvla_ros.view.policy_status import Snapshot, node_of, parse_status

_SIM_TIME = "use_sim_time"
_PATIENCE_S = 0.5
_DEFAULTS = NodeConfig()


class _Question:
    """One service call, made again until it is answered: an early answer may find no ear."""

    def __init__(self, client: Client[Any, Any], request: Any) -> None:
        self._client, self._request = client, request
        self._asked_s = -_PATIENCE_S
        self.answer: Any = None

    def ask(self) -> None:
        now_s = time.monotonic()
        is_due = self.answer is None and now_s - self._asked_s >= _PATIENCE_S
        if is_due and self._client.service_is_ready():
            self._asked_s = now_s
            self._client.call_async(self._request).add_done_callback(self._take)

    def _take(self, future: Any) -> None:
        # A server that went away meanwhile is no answer.
        self.answer = self.answer or (None if future.exception() else future.result())


class NodeInquiry:
    """What one policy node tells about itself.

    Args:
        node: asks and listens.
        name: full name of the policy node.
    """

    def __init__(self, node: Node, name: str) -> None:
        self.name = name
        self._names = [*(key for key, _, _ in parameters(NodeConfig())), _SIM_TIME]
        self._values = _Question(
            node.create_client(GetParameters, f"{name}/get_parameters"),
            GetParameters.Request(names=self._names),
        )
        self._state = _Question(node.create_client(GetState, f"{name}/get_state"), GetState.Request())
        self._answered: tuple[NodeConfig, bool] | None = None
        self.snapshot: Snapshot | None = None
        node.create_subscription(
            DiagnosticArray, "/diagnostics", self._on_diagnostics, qos.DIAGNOSTICS, raw=True
        )

    def watch(self) -> None:
        """Ask what is not known yet; to be called a few times a second."""
        self._values.ask()
        self._state.ask()

    @property
    def config(self) -> NodeConfig:
        """The node's parameters; the defaults while it has not told them."""
        return self._told()[0]

    def result(self, count: int) -> PolicyNode:
        """Return what was told so far.

        Args:
            count: nodes of this name.
        """
        config, uses_sim_time = self._told()
        snapshot = self.snapshot
        return PolicyNode(
            name=self.name,
            count=count,
            state="" if self._state.answer is None else self._state.answer.current_state.label,
            config=config,
            told_config=config is not _DEFAULTS,
            uses_sim_time=uses_sim_time,
            level="ok" if snapshot is None else snapshot.level,
            stop_code="" if snapshot is None else snapshot.reason,
            stop_message="" if snapshot is None else snapshot.message,
            instruction="" if snapshot is None else snapshot.instruction,
        )

    def _told(self) -> tuple[NodeConfig, bool]:
        """Return the parameters, and whether the node's time is /clock's."""
        if self._answered is None and self._values.answer is not None:
            told = map(parameter_value_to_python, self._values.answer.values)
            # Another version does not know every name, and then gives no value for it.
            values = {name: _plain(value) for name, value in zip(self._names, told, strict=False)}
            values = {name: value for name, value in values.items() if value is not None}
            uses_sim_time = bool(values.pop(_SIM_TIME, False))
            try:
                self._answered = with_values(NodeConfig(), values), uses_sim_time
            except ConfigError:  # nor are its values ours
                self._answered = _DEFAULTS, uses_sim_time
        return self._answered or (_DEFAULTS, False)

    def _on_diagnostics(self, data: bytes) -> None:
        try:
            message = deserialize_message(data, DiagnosticArray)
        except Exception:  # noqa: BLE001  # whatever anybody may publish
            return
        for name, level, text, values in statuses_in(message):
            if node_of(name) == self.name:
                self.snapshot = parse_status(self.name, level, text, values)


def _plain(value: Any) -> Any:
    """Turn an array into a tuple."""
    return tuple(value) if hasattr(value, "__len__") and not isinstance(value, str) else value
