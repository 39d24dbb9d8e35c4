"""What every simulated world offers: reset, step, observe, and whether the goal is reached."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lightvla_ros.core.errors import SpecError
from lightvla_ros.core.rotation import quaternion_to_axis_angle

ACTION_NAMES = ("x", "y", "z", "roll", "pitch", "yaw", "gripper")
# What every world's cameras are called.
CAMERAS = ("third_person", "wrist")
# Of the state vector, see `WorldState.proprio`.
PROPRIO_DIM = 8
CONTROL_PERIOD_S = 0.05
TRANSLATION_SCALE_M = 0.05
ROTATION_SCALE_RAD = 0.5
# Of an action's last number.
OPEN, CLOSE = -1.0, 1.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WorldState:
    """What the robot and its cameras measure at one control step.

    Attributes:
        images: camera name -> uint8 [H, W, 3] RGB; empty when rendering is off.
        eef_position: float64 [3], m, world frame (x forward from the robot, y left, z up).
        eef_quaternion: float64 [4], x, y, z, w, end effector in the world frame.
        joint_positions: float64 [7], rad.
        gripper_positions: float64 [2], m from closed; the second finger is negative, as in LIBERO.
    """

    images: dict[str, NDArray[np.uint8]]
    eef_position: NDArray[np.float64]
    eef_quaternion: NDArray[np.float64]
    joint_positions: NDArray[np.float64]
    gripper_positions: NDArray[np.float64]

    @property
    def proprio(self) -> NDArray[np.float64]:
        """float64 [8]: eef position (m), eef axis-angle (rad), finger positions (m)."""
        rotation = quaternion_to_axis_angle(self.eef_quaternion)
        return np.concatenate([self.eef_position, rotation, self.gripper_positions])


class World(Protocol):
    """A simulated robot with cameras that poses instructions and judges them.

    A world that renders must be used by the thread that created it.
    """

    control_period_s: float
    joint_names: tuple[str, ...]

    @property
    def instruction(self) -> str:
        """Instruction of the current episode."""
        ...

    def instructions(self) -> tuple[str, ...]:
        """Every instruction the world can pose."""
        ...

    def reset(self, *, instruction: str | None = None, seed: int = 0) -> WorldState:
        """Start an episode; the same instruction and seed give the same episode.

        Raises:
            ConfigError: the instruction is unknown.
        """
        ...

    def set_goal(self, instruction: str) -> None:
        """Change the goal without moving anything.

        Raises:
            ConfigError: the instruction is unknown; the message lists the known ones.
        """
        ...

    def step(self, action: NDArray[np.float64]) -> None:
        """Act for one control period; what it led to is measured by `observe`, and only rendered there.

        Args:
            action: [7], each in [-1, 1] (clipped): translation in units of 0.05 m, rotation vector
                in units of 0.5 rad, both in the world frame; gripper -1 opens, +1 closes, 0 keeps.

        Raises:
            SpecError: wrong shape or not finite; nothing has moved.
        """
        ...

    def observe(self) -> WorldState:
        """Measure and render the present state."""
        ...

    def is_success(self) -> bool:
        """Whether the present instruction is fulfilled now."""
        ...

    def close(self) -> None:
        """Free the renderer; the world cannot be used afterwards."""
        ...


def checked_action(action: object) -> NDArray[np.float64]:
    """Return the action as float64 [7] clipped to [-1, 1].

    Raises:
        SpecError: wrong shape or not finite.
    """
    try:
        values = np.asarray(action, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise SpecError("world action", got=repr(action), expected="seven numbers") from error
    if values.shape != (len(ACTION_NAMES),):
        raise SpecError(
            "world action",
            got=f"shape {values.shape}",
            expected=f"shape ({len(ACTION_NAMES)},): {', '.join(ACTION_NAMES)}",
            fix="pass one step of the chunk, not the chunk",
        )
    if not np.isfinite(values).all():
        raise SpecError(
            "world action", got=values.tolist(), expected="finite numbers", fix="stop the policy that sent it"
        )
    return np.clip(values, -1.0, 1.0)
