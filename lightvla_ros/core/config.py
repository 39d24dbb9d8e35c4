"""The policy node's configuration: one typed tree, the only place of defaults, units, ranges and meanings.

The ROS parameters are declared from these fields (`nodes/parameters.py`); a field of a nested section
is the parameter `section.field`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lightvla_ros.core.errors import ConfigError
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
class CameraConfig(Section):
    """How images arrive."""

    transport: str = parameter(
        "raw",
        "Message type of the camera topics: sensor_msgs/Image (raw) or CompressedImage (compressed).",
        choices=("raw", "compressed"),
    )
    reliability: str = parameter(
        "best_effort",
        "Reliability asked of the cameras; reliable loses no large image, but needs a reliable publisher.",
        choices=("best_effort", "reliable"),
    )
    max_pair_skew_s: float = parameter(
        0.03,
        "Largest difference of the stamps of images used together; 0.03 pairs unsynchronised 20 Hz cameras.",
        unit="s",
        minimum=0.0,
        maximum=1.0,
        read_only=False,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ProprioConfig(Section):
    """How the robot's state arrives."""

    source: str = parameter(
        "eef_pose",
        "eef_pose: PoseStamped and the gripper's JointState; proprio: Float64MultiArray, the whole vector.",
        choices=("eef_pose", "proprio"),
    )
    gripper_joints: tuple[str, ...] = parameter(
        ("finger_left", "finger_right"),
        "Names of the gripper joints in joint_states, in the order the policy was trained with.",
    )
    gripper_scales: tuple[float, ...] = parameter(
        (1.0, 1.0),
        "Factor per gripper joint; LIBERO's second finger is negative: -1 where the driver's is positive.",
        minimum=-1000.0,
        maximum=1000.0,
    )

    def __post_init__(self) -> None:
        """Check the fields, and that there is one scale per joint."""
        Section.__post_init__(self)
        if len(self.gripper_scales) != len(self.gripper_joints):
            raise ConfigError(
                "gripper_scales",
                got=f"{len(self.gripper_scales)} numbers",
                expected=f"one per gripper joint, {len(self.gripper_joints)}",
                fix="set proprio.gripper_scales and proprio.gripper_joints together",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandConfig(Section):
    """What is sent to the controller."""

    type: str = parameter(
        "twist",
        "Command message: velocities as TwistStamped (twist), targets as PoseStamped (pose), the action "
        "itself as Float64MultiArray (forward) or as a point of a JointTrajectory (trajectory), or none.",
        choices=("twist", "pose", "forward", "trajectory", "none"),
    )
    joint_names: tuple[str, ...] = parameter(
        ("joint_1", "joint_2", "joint_3", "joint_4", "joint_5", "joint_6"),
        "Joints of a trajectory, one per action dimension but the gripper; for command type trajectory.",
    )
    hold: str = parameter(
        "zero",
        "What forward and trajectory publish to stand still: zero for actions that are velocities or deltas, "
        "last for actions that are positions.",
        choices=("zero", "last"),
    )
    workspace_min_m: tuple[float, ...] = parameter(
        (-10.0, -10.0, -10.0),
        "Corner of the box that pose targets never leave, in frame_id.",
        unit="m",
        minimum=-1000.0,
        maximum=1000.0,
    )
    workspace_max_m: tuple[float, ...] = parameter(
        (10.0, 10.0, 10.0), "The opposite corner.", unit="m", minimum=-1000.0, maximum=1000.0
    )
    frame_id: str = parameter(
        "base_link", "Frame in which the policy's end-effector deltas, so the twists, are expressed."
    )
    linear_scale_m: float = parameter(
        0.05,
        "Translation that an action of 1 asks for in one step (LIBERO: 0.05).",
        unit="m",
        minimum=0.0,
        maximum=10.0,
    )
    angular_scale_rad: float = parameter(
        0.5,
        "Rotation that an action of 1 asks for in one step (LIBERO: 0.5).",
        unit="rad",
        minimum=0.0,
        maximum=100.0,
    )

    def __post_init__(self) -> None:
        """Check the fields, and that the workspace is a box."""
        Section.__post_init__(self)
        low, high = self.workspace_min_m, self.workspace_max_m
        if len(low) != 3 or len(high) != 3 or not all(a < b for a, b in zip(low, high, strict=True)):
            raise ConfigError(
                "workspace_max_m",
                got=f"corners {list(low)} and {list(high)}",
                expected="three numbers each, and the maximum above the minimum",
                fix="set command.workspace_min_m and command.workspace_max_m together",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsConfig(Section):
    """How fast a command may be; the direction is kept."""

    max_linear_m_s: float = parameter(
        1.0,
        "Largest linear speed commanded; 1.0 is a full LIBERO step at 20 Hz, set what your cell allows.",
        unit="m/s",
        minimum=0.0,
        maximum=10.0,
        read_only=False,
    )
    max_angular_rad_s: float = parameter(
        3.0,
        "Largest angular speed commanded.",
        unit="rad/s",
        minimum=0.0,
        maximum=100.0,
        read_only=False,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class GripperConfig(Section):
    """How the gripper dimension (-1 open, +1 close) becomes a message."""

    hysteresis: float = parameter(
        0.5,
        "The gripper changes only when its action passes plus or minus this value.",
        minimum=0.0,
        maximum=0.99,
        read_only=False,
    )
    open_value: float = parameter(
        -1.0, "Value published on policy/gripper to open.", minimum=-1000.0, maximum=1000.0
    )
    closed_value: float = parameter(
        1.0, "Value published on policy/gripper to close.", minimum=-1000.0, maximum=1000.0
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskConfig(Section):
    """Pictures of what was pruned; they cost nothing while nobody listens."""

    tokens: bool = parameter(True, "Offer policy/retained_tokens/<camera>, the patch grid as mono8.")
    overlay: bool = parameter(True, "Offer policy/overlay/<camera>, the image with pruned patches dimmed.")


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
    silence_after_s: float = parameter(
        1.0,
        "How long zero commands are held when no action is due, before the topic goes silent.",
        unit="s",
        minimum=0.0,
        maximum=3600.0,
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
    blend_new_weight: float = parameter(
        0.7,
        "Weight of the newest chunk where it overlaps the schedule; the rest is the previous one's.",
        minimum=0.01,
        maximum=1.0,
        read_only=False,
    )
    execution_horizon: int = parameter(
        2,
        "Steps of a chunk executed before the next inference. 1 infers from every frame; a policy whose "
        "first steps alone are executed may hesitate for ever where two or more carry it on.",
        minimum=1,
        maximum=1000,
        read_only=False,
    )
    enable_actuation: bool = parameter(
        False, "Whether commands are enabled at activation; the service ~/enable changes it later."
    )
    auto_activate: bool = parameter(False, "Configure and activate at start, without a lifecycle manager.")
    worker: WorkerConfig = WorkerConfig()
    camera: CameraConfig = CameraConfig()
    proprio: ProprioConfig = ProprioConfig()
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
    known = {name: (value, info) for name, value, info in parameters(config)}
    coerced: dict[str, object] = {}
    for name, value in values.items():
        if name not in known:
            raise ConfigError(
                f"parameter {name}",
                got="an unknown name",
                expected="a parameter of the policy node",
                fix="config/policy.yaml and `ros2 param list` show them all",
            )
        current, info = known[name]
        coerced[name] = coerce(value, current)
        check_value(name, coerced[name], current, info)
    return replace(config, coerced, "")  # type: ignore[no-any-return]  # a NodeConfig goes in and comes out
