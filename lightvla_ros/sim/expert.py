"""A scripted expert for the tabletop, with privileged knowledge of where things are."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lightvla_ros.core.rotation import matrix_to_rotation_vector
from lightvla_ros.sim.arm_controller import DOWN
from lightvla_ros.sim.motion import ramp, speed_along
from lightvla_ros.sim.tabletop import Tabletop
from lightvla_ros.sim.world import CLOSE, OPEN, ROTATION_SCALE_RAD

_GAIN = 0.25
_MAX_ACROSS = 0.4
_MAX_UP = 0.4
_MAX_DOWN = 0.25
_MAX_TURN = 0.2
_HOVER_M = 0.10
_CARRY_M = 0.15
_RETREAT_M = 0.20
_ALIGNED_M = 0.006
_GRASP_REACH_M = 0.012
_HELD_ACROSS_M = 0.020
# Wide enough to be crossed at speed: a policy that copies a slower approach stops short and waits.
_RELEASE_REACH_M = 0.015


class TabletopExpert:
    """Picks the goal's object and places it, judging by the present state alone.

    It keeps nothing between calls, so it can answer for any state a policy gets into, and what it
    does follows from what the cameras and the state vector show.
    """

    def reset(self, world: Tabletop) -> None:
        """Begin an episode; nothing to prepare."""

    def act(self, world: Tabletop) -> NDArray[np.float64]:
        """Return the action [7] for the present state, as `World.step` takes it, each |value| <= 1."""
        if self._holds(world):
            offset, gripper = self._carry(world)
        elif world.over_target():
            offset, gripper = self._retreat(world)
        else:
            offset, gripper = self._approach(world)
        speed = speed_along(offset, gain=_GAIN, max_across=_MAX_ACROSS, max_up=_MAX_UP, max_down=_MAX_DOWN)
        return np.concatenate([speed, self._upright(world), [gripper]])

    def _holds(self, world: Tabletop) -> bool:
        position, _ = world.eef_pose()
        item = world.goal.item
        off = position - world.object_position() - [0.0, 0.0, item.grasp_offset]
        near = np.linalg.norm(off[:2]) < _HELD_ACROSS_M and abs(off[2]) < item.half_height
        return bool(near and world.pinches_object())

    def _approach(self, world: Tabletop) -> tuple[NDArray[np.float64], float]:
        """Come in through a funnel above the object: the nearer across, the lower; close at the bottom."""
        position, _ = world.eef_pose()
        grasp = world.object_position() + [0.0, 0.0, world.goal.item.grasp_offset]
        offset = grasp - position
        across = float(np.linalg.norm(offset[:2]))
        if across < _GRASP_REACH_M and abs(offset[2]) < _GRASP_REACH_M:
            return offset, CLOSE
        height = _HOVER_M * ramp(across, _ALIGNED_M, 0.03)
        if world.finger_opening() < world.goal.item.half_width + 0.010:
            # Closed fingers would push the object down.
            height = max(height, 0.5 * _HOVER_M)
        offset[2] += height
        offset[:2] *= 1.0 - ramp(offset[2], 0.0, 0.06)
        return offset, OPEN

    def _carry(self, world: Tabletop) -> tuple[NDArray[np.float64], float]:
        """Lift, go across, come down over the target, let go."""
        position, _ = world.eef_pose()
        item, target = world.goal.item, world.goal.target
        thing = world.object_position()
        offset = world.target_position() - thing
        across = float(np.linalg.norm(offset[:2]))
        release = target.release_height + item.half_height - thing[2]
        if across < 0.02 and abs(release) < _RELEASE_REACH_M:
            return np.zeros(3), OPEN
        far = ramp(across, 0.015, 0.08)
        offset[2] = (1.0 - far) * release + far * (_CARRY_M - position[2])
        offset[:2] *= 1.0 - far * ramp(_CARRY_M - position[2], 0.04, 0.10)
        return offset, CLOSE

    def _retreat(self, world: Tabletop) -> tuple[NDArray[np.float64], float]:
        """Go up, once the fingers are wide enough not to take the object along."""
        position, _ = world.eef_pose()
        half_width = world.goal.item.half_width
        free = ramp(world.finger_opening(), half_width + 0.003, half_width + 0.010)
        return np.array([0.0, 0.0, free * (_RETREAT_M - position[2])]), OPEN

    @staticmethod
    def _upright(world: Tabletop) -> NDArray[np.float64]:
        _, rotation = world.eef_pose()
        turn = _GAIN * matrix_to_rotation_vector(DOWN @ rotation.T) / ROTATION_SCALE_RAD
        return np.asarray(np.clip(turn, -_MAX_TURN, _MAX_TURN))
