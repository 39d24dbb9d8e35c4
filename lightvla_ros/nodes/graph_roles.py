"""Which topics are a policy node's cameras, state, instruction and command, whatever they are called."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from lightvla_ros.core.config import NodeConfig

IMAGE, COMPRESSED_IMAGE = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
_POSE, _JOINTS = "geometry_msgs/msg/PoseStamped", "sensor_msgs/msg/JointState"
_ARRAY, _TEXT = "std_msgs/msg/Float64MultiArray", "std_msgs/msg/String"
_TRAJECTORY = "trajectory_msgs/msg/JointTrajectory"
_COMMANDS = {
    "twist": "geometry_msgs/msg/TwistStamped",
    "pose": _POSE,
    "forward": _ARRAY,
    "jtc_point": _TRAJECTORY,
    "jtc_chunk": _TRAJECTORY,
}
_CAMERAS = ("third_person", "wrist")
_CHUNK = "policy/action_chunk"

# A topic's full name, and the message type expected on it.
Role: TypeAlias = tuple[str, str]
# Topics and their types, as rclpy tells them of a node.
Ends: TypeAlias = Sequence[tuple[str, Sequence[str]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Roles:
    """What each topic is to the policy node."""

    cameras: Mapping[str, Role]
    states: tuple[Role, ...]
    instruction: Role
    command: Role

    @property
    def heard(self) -> Iterator[Role]:
        """The topics that the node listens to."""
        yield from (*self.cameras.values(), *self.states, self.instruction)


def roles_of(
    *, namespace: str, config: NodeConfig, hears: Ends, says: Ends, camera_names: Mapping[str, str]
) -> Roles:
    """Find the topics of a node by what it subscribes and publishes, and by the defaults before it does.

    Args:
        namespace: of the node, "" for none.
        config: its parameters.
        hears: what it subscribes; nothing before it is configured.
        says: what it publishes.
        camera_names: its topics -> cameras, as far as it told them.
    """
    suffix, image = ("/compressed", COMPRESSED_IMAGE) if _is_compressed(config) else ("", IMAGE)
    cameras = {
        camera_names.get(name, name): (name, kind) for name, kind in _of(hears, IMAGE, COMPRESSED_IMAGE)
    }
    if config.proprio.source == "proprio":
        states: tuple[Role, ...] = ((f"{namespace}/robot/proprio", _ARRAY),)
    else:
        states = ((f"{namespace}/robot/eef_pose", _POSE), (f"{namespace}/joint_states", _JOINTS))
    kind = _COMMANDS.get(config.command.type, _COMMANDS["twist"])
    commands = [role for role in _of(says, kind) if not role[0].endswith(_CHUNK)]
    return Roles(
        cameras=cameras or {name: (f"{namespace}/camera/{name}/image{suffix}", image) for name in _CAMERAS},
        states=tuple(_of(hears, *(kind for _, kind in states))) or states,
        instruction=next(_of(hears, _TEXT), (f"{namespace}/instruction", _TEXT)),
        command=next(iter(commands), (f"{namespace}/policy/command", kind)),
    )


def _of(ends: Ends, *kinds: str) -> Iterator[Role]:
    """Yield the topics of some message types."""
    return ((topic, kind) for topic, types in ends for kind in types if kind in kinds)


def _is_compressed(config: NodeConfig) -> bool:
    return config.camera.transport == "compressed"
