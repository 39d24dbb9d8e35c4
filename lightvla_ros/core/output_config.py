"""What the robot is told and how it may move: the parts of the configuration about output."""

from __future__ import annotations

from dataclasses import dataclass

from lightvla_ros.core.errors import ConfigError
from lightvla_ros.core.parameter import Section, parameter


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleConfig(Section):
    """Which step of which chunk is due, and when the next inference starts."""

    mode: str = parameter(
        "continuous",
        "continuous: the next inference starts execution_horizon steps after the last one's observation, "
        "and its chunk takes over at once. threshold: it starts so early that its chunk comes when only "
        "threshold of the steps are left. sync: execution_horizon steps are executed, then the robot stands "
        "still until the chunk of a new observation has come.",
        choices=("continuous", "threshold", "sync"),
        read_only=False,
    )
    execution_horizon: int = parameter(
        2,
        "Steps of a chunk executed before the next inference (not with mode threshold). 1 infers from every "
        "frame; a policy whose first steps alone are executed may hesitate for ever where two or more carry "
        "it on.",
        minimum=1,
        maximum=1000,
        read_only=False,
    )
    threshold: float = parameter(
        0.5,
        "Share of a chunk's steps that shall be left when the next chunk comes, by the 95th percentile of "
        "how long chunks took; for mode threshold.",
        minimum=0.0,
        maximum=1.0,
        read_only=False,
    )
    actions: str = parameter(
        "deltas",
        "What an action means. deltas: a motion during one step, the same however often it is commanded; "
        "standing still is zero. positions: where to be when the step begins, interpolated between steps; "
        "standing still is the last one.",
        choices=("deltas", "positions"),
    )
    blending: str = parameter(
        "overlap",
        "How chunks that overlap are joined. overlap: the newest with blend_new_weight. ensemble: all of "
        "them, weighted by age as ACT does. The gripper is always the newest chunk's.",
        choices=("overlap", "ensemble"),
        read_only=False,
    )
    blend_new_weight: float = parameter(
        0.7,
        "Weight of the newest chunk where it overlaps the schedule; the rest is the previous one's.",
        minimum=0.01,
        maximum=1.0,
        read_only=False,
    )
    ensemble_decay: float = parameter(
        0.01,
        "Decay m of the ensemble's weights exp(-m i), where i = 0 is the oldest chunk; a larger value gives "
        "new observations less say.",
        minimum=0.0,
        maximum=10.0,
        read_only=False,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandConfig(Section):
    """What is sent to the controller."""

    type: str = parameter(
        "twist",
        "Command message: velocities as TwistStamped (twist), targets as PoseStamped (pose), the action "
        "itself as Float64MultiArray (forward), as the one point of a JointTrajectory (jtc_point) or all "
        "steps ahead as its points (jtc_chunk), or none.",
        choices=("twist", "pose", "forward", "jtc_point", "jtc_chunk", "none"),
    )
    joint_names: tuple[str, ...] = parameter(
        ("joint_1", "joint_2", "joint_3", "joint_4", "joint_5", "joint_6"),
        "Joints in the controller's order, one per action dimension but the gripper; for command types "
        "forward, jtc_point and jtc_chunk. Joints that the policy's actions are named after are found by "
        "name, others keep the actions' order.",
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


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsConfig(Section):
    """How far and how fast a command may go; what is limited is counted and keeps its direction."""

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
    max_linear_step_m: float = parameter(
        10.0,
        "Largest translation commanded in one step.",
        unit="m",
        minimum=0.0,
        maximum=10.0,
        read_only=False,
    )
    max_angular_step_rad: float = parameter(
        100.0,
        "Largest rotation commanded in one step.",
        unit="rad",
        minimum=0.0,
        maximum=100.0,
        read_only=False,
    )
    action_min: tuple[float, ...] = parameter(
        (-1000.0,),
        "Smallest value of each action dimension but the gripper, in the action's unit; one number counts "
        "for all.",
        minimum=-1e6,
        maximum=1e6,
        read_only=False,
    )
    action_max: tuple[float, ...] = parameter(
        (1000.0,),
        "Largest value of each action dimension but the gripper; one number counts for all.",
        minimum=-1e6,
        maximum=1e6,
        read_only=False,
    )
    max_change_per_s: tuple[float, ...] = parameter(
        (1e6,),
        "How much each action dimension but the gripper may change in a second, in the action's unit: an "
        "acceleration for deltas, a speed for positions; one number counts for all.",
        minimum=0.0,
        maximum=1e6,
        read_only=False,
    )
    workspace_min_m: tuple[float, ...] = parameter(
        (-10.0, -10.0, -10.0),
        "Corner of the box that twists and pose targets never lead the end effector out of, in the frame "
        "of the measured pose.",
        unit="m",
        minimum=-1000.0,
        maximum=1000.0,
        read_only=False,
    )
    workspace_max_m: tuple[float, ...] = parameter(
        (10.0, 10.0, 10.0), "The opposite corner.", unit="m", minimum=-1000.0, maximum=1000.0, read_only=False
    )

    def __post_init__(self) -> None:
        """Check the fields, that the workspace is a box, and that minima lie below maxima."""
        Section.__post_init__(self)
        low, high = self.workspace_min_m, self.workspace_max_m
        if len(low) != 3 or len(high) != 3 or not all(a < b for a, b in zip(low, high, strict=True)):
            raise ConfigError(
                "workspace_max_m",
                got=f"corners {list(low)} and {list(high)}",
                expected="three numbers each, and the maximum above the minimum",
                fix="set limits.workspace_min_m and limits.workspace_max_m together",
            )
        pairs = zip(self.action_min, self.action_max, strict=False)
        if not self.action_min or not self.action_max or any(low > high for low, high in pairs):
            raise ConfigError(
                "action_max",
                got=f"{list(self.action_max)} with action_min {list(self.action_min)}",
                expected="one number or one per action dimension, the maximum not below the minimum",
                fix="set limits.action_min and limits.action_max together",
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
