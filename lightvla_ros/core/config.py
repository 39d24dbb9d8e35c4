"""The policy node's configuration: one typed tree, the only place of defaults, units, ranges and meanings.

The ROS parameters are declared from these fields (`nodes/parameters.py`); a field of a nested section
is the parameter `section.field`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lightvla_ros.core.errors import ConfigError
from lightvla_ros.core.input_config import CameraConfig, ProprioConfig
from lightvla_ros.core.output_config import (
    CommandConfig,
    GripperConfig,
    LimitsConfig,
    MaskConfig,
    ScheduleConfig,
)
from lightvla_ros.core.parameter import (
    ParameterInfo,
    Section,
    check_value,
    coerce,
    parameter,
    replace,
    walk,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerConfig(Section):
    """Where inference runs."""

    separate_process: bool = parameter(
        True,
        "Run inference in a process of its own, which cannot hold up commands and is restarted when it ends; "
        "False keeps it in the node's, for debugging.",
    )
    timeout_s: float = parameter(
        5.0,
        "An inference that takes longer counts as hung: the robot stops and the process is restarted.",
        unit="s",
        minimum=0.05,
        maximum=600.0,
    )
    max_restarts: int = parameter(
        5, "Restarts within a minute before the node gives up.", minimum=0, maximum=100
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeConfig(Section):
    """Everything the policy node can be told."""

    engine: str = parameter(
        "mini", "Engine bundle or checkpoint: a directory, or the name of an installed bundle."
    )
    backend: str = parameter(
        "auto", "What runs the policy.", choices=("auto", "torch", "onnxruntime", "tensorrt")
    )
    statistics_key: str = parameter(
        "", "Which normalisation statistics to use; empty where the bundle has only one entry."
    )
    device: str = parameter(
        "auto",
        "Where backend torch runs; auto takes the GPU where there is one.",
        choices=("auto", "cpu", "cuda"),
    )
    allow_unverified: bool = parameter(
        False, "Run a TensorRT plan that `lightvla verify` has not passed; for finding out why it fails."
    )
    pruning: bool = parameter(
        True, "False decodes every visual token on the same engine: what the model does without pruning."
    )
    num_threads: int = parameter(
        0, "CPU threads of the backend; 0 leaves the choice to it.", minimum=0, maximum=1024
    )
    chunk_rate_hz: float = parameter(
        20.0,
        "Rate of policy/action_chunk; 20 is the step rate of LIBERO policies, so no step goes unseen.",
        unit="Hz",
        minimum=1.0,
        maximum=1000.0,
    )
    command_rate_hz: float = parameter(
        20.0, "Rate of policy/command.", unit="Hz", minimum=1.0, maximum=1000.0
    )
    realtime_priority: int = parameter(
        20,
        "SCHED_FIFO priority of the command thread, where the system permits it (the rest of the node gets "
        "one less, inference none); 0 for none.",
        minimum=0,
        maximum=99,
    )
    stale_after_s: float = parameter(
        0.5,
        "Camera images and robot state older than this stop the motion.",
        unit="s",
        minimum=0.01,
        maximum=60.0,
        read_only=False,
    )
    max_ahead_s: float = parameter(
        0.1,
        "How far the stamps of images and robot state may be ahead of this node's clock, as the clocks of "
        "several computers or a simulator's publishing order let them; what is further ahead is refused.",
        unit="s",
        minimum=0.0,
        maximum=1.0,
        read_only=False,
    )
    silence_after_s: float = parameter(
        1.0,
        "How long zero commands are held when no action is due, before the topic goes silent.",
        unit="s",
        minimum=0.0,
        maximum=3600.0,
        read_only=False,
    )
    instruction_timeout_s: float = parameter(
        0.0,
        "An instruction that was not published again for longer than this stops the motion; 0 never.",
        unit="s",
        minimum=0.0,
        maximum=86400.0,
        read_only=False,
    )
    clock_jump_s: float = parameter(
        1.0,
        "ROS time that runs ahead by more than this between two ticks, or backwards at all, resets the node.",
        unit="s",
        minimum=0.01,
        maximum=3600.0,
        read_only=False,
    )
    enable_actuation: bool = parameter(
        False, "Whether commands are enabled at activation; the service ~/enable changes it later."
    )
    auto_activate: bool = parameter(False, "Configure and activate at start, without a lifecycle manager.")
    worker: WorkerConfig = WorkerConfig()
    camera: CameraConfig = CameraConfig()
    proprio: ProprioConfig = ProprioConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    command: CommandConfig = CommandConfig()
    limits: LimitsConfig = LimitsConfig()
    gripper: GripperConfig = GripperConfig()
    masks: MaskConfig = MaskConfig()


def parameters(config: NodeConfig) -> Iterator[tuple[str, Any, ParameterInfo]]:
    """Yield (dotted name, value, meaning) of every parameter, in the order of the file."""
    yield from walk(config, "")


def with_values(config: NodeConfig, values: Mapping[str, object]) -> NodeConfig:
    """Return the configuration with some parameters changed.

    Args:
        config: the configuration to start from.
        values: dotted name -> value; whole numbers and lists are taken where floats and tuples belong.

    Raises:
        ConfigError: unknown name, wrong type or out of range.
    """
    # A parameter's type is its default's: a list that was emptied no longer tells what belongs in it.
    known = {name: (default, info) for name, default, info in parameters(NodeConfig())}
    coerced: dict[str, object] = {}
    for name, value in values.items():
        if name not in known:
            raise ConfigError(
                f"parameter {name}",
                got="an unknown name",
                expected="a parameter of the policy node",
                fix="config/policy.yaml and `ros2 param list` show them all",
            )
        default, info = known[name]
        coerced[name] = coerce(value, default)
        check_value(name, coerced[name], default, info)
    return replace(config, coerced, "")  # type: ignore[no-any-return]  # a NodeConfig goes in and comes out
