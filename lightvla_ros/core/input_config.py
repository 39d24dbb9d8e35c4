"""How images and the robot's state arrive: the parts of the configuration about input."""

from __future__ import annotations

from dataclasses import dataclass

from lightvla_ros.core.errors import ConfigError
from lightvla_ros.core.parameter import Section, parameter


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraConfig(Section):
    """How images arrive."""

    transport: str = parameter(
        "raw",
        "Message type of the camera topics: sensor_msgs/Image (raw) or CompressedImage (compressed).",
        choices=("raw", "compressed"),
    )
    reliability: str = parameter(
        "auto",
        "Reliability asked of the cameras: auto takes what their publisher offers, reliable loses no large "
        "image but hears no best-effort publisher.",
        choices=("auto", "best_effort", "reliable"),
    )
    upside_down: str = parameter(
        "",
        "Cameras whose images arrive upside down, by name with spaces between; the policy is shown them "
        "turned by 180 degrees, as LIBERO's raw images need it. Masks and overlays fit what arrives.",
    )
    max_pair_skew_s: float = parameter(
        0.03,
        "Largest difference of the stamps of images used together; 0.03 pairs unsynchronised 20 Hz cameras.",
        unit="s",
        minimum=0.0,
        maximum=1.0,
        read_only=False,
    )
    frozen_after_s: float = parameter(
        0.0,
        "Images that stay the same pixel for pixel for longer than this stop the motion, as a hung driver "
        "repeats them under new stamps; 0 never, as simulated cameras have no noise.",
        unit="s",
        minimum=0.0,
        maximum=3600.0,
        read_only=False,
    )

    @property
    def upside_down_names(self) -> frozenset[str]:
        """The cameras whose images are turned."""
        return frozenset(self.upside_down.split())


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
