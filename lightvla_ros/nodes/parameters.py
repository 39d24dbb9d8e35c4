"""ROS parameters declared from the typed configuration, and turned back into it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter

from lightvla_ros.core.config import NodeConfig, parameters, with_values
from lightvla_ros.core.errors import ConfigError
from lightvla_ros.core.parameter import ParameterInfo

_ROS_OWN = ("use_sim_time", "start_type_description_service", "qos_overrides.")


class NodeParameters:
    """The node's parameters.

    Values given at start that are wrong do not end the node: they are kept as problems for `read`,
    so that configuring is refused with the reason.

    Args:
        node: a node made with `automatically_declare_parameters_from_overrides=True`, which is how
            unknown names come to light.
        on_change: takes the new configuration after a change at run time; refuses it with `ConfigError`.
    """

    def __init__(self, node: Node, *, on_change: Callable[[NodeConfig], None]) -> None:
        self._on_change = on_change
        self._problems: list[ConfigError] = []
        self._config = NodeConfig()
        self._take_overrides(node)
        for name, value, info in parameters(self._config):
            default = list(value) if isinstance(value, tuple) else value
            node.declare_parameter(name, default, describe(value, info), ignore_override=True)
        node.add_on_set_parameters_callback(self._on_set)

    @property
    def config(self) -> NodeConfig:
        """The configuration as far as it is valid."""
        return self._config

    def read(self) -> NodeConfig:
        """Return the configuration.

        Raises:
            ConfigError: naming every value given at start that is unknown or wrong.
        """
        if self._problems:
            raise ConfigError("\n".join(str(problem) for problem in self._problems))
        return self._config

    def _take_overrides(self, node: Node) -> None:
        """Take what was given, a section at a time: joints and their scales, for example, go together."""
        sections: dict[str, dict[str, object]] = {}
        for name, override in node.get_parameters_by_prefix("").items():
            if not name.startswith(_ROS_OWN):
                sections.setdefault(name.rpartition(".")[0], {})[name] = override.value
                node.undeclare_parameter(name)
        for values in sections.values():
            try:
                self._config = with_values(self._config, values)
            except ConfigError:
                self._take_one_by_one(values)

    def _take_one_by_one(self, values: dict[str, object]) -> None:
        """Keep every problem of a section with a wrong value, not only the first."""
        for name, value in values.items():
            try:
                self._config = with_values(self._config, {name: value})
            except ConfigError as problem:
                self._problems.append(problem)

    def _on_set(self, changes: Sequence[Parameter[Any]]) -> SetParametersResult:
        values = {change.name: change.value for change in changes if not change.name.startswith(_ROS_OWN)}
        try:
            config = with_values(self._config, values)
            self._on_change(config)
        except ConfigError as problem:
            return SetParametersResult(successful=False, reason=str(problem))
        self._config = config
        return SetParametersResult(successful=True)


def describe(value: object, info: ParameterInfo) -> ParameterDescriptor:
    """Say what a parameter means, as `ros2 param describe` shows it."""
    unit = f" [{info.unit}]" if info.unit else ""
    descriptor = ParameterDescriptor(
        description=f"{info.description}{unit}",
        read_only=info.read_only,
        additional_constraints=info.rule if info.choices or isinstance(value, tuple) else "",
    )
    if info.minimum is not None and info.maximum is not None:
        if isinstance(value, float):
            limits = FloatingPointRange(from_value=info.minimum, to_value=info.maximum)
            descriptor.floating_point_range = [limits]
        elif isinstance(value, int):
            whole = IntegerRange(from_value=int(info.minimum), to_value=int(info.maximum), step=1)
            descriptor.integer_range = [whole]
    return descriptor
