"""Differential inverse kinematics: follow an end-effector pose with seven position-controlled joints."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lightvla_ros.core.rotation import matrix_to_rotation_vector, rotation_vector_to_matrix
from lightvla_ros.sim.gl import mujoco
from lightvla_ros.sim.tabletop_scene import HOME_JOINTS

WORKSPACE_LOW = np.array([-0.32, -0.38, 0.012])
WORKSPACE_HIGH = np.array([0.20, 0.38, 0.40])
DOWN = np.diag([1.0, -1.0, -1.0])
_NUM_JOINTS = len(HOME_JOINTS)
_DAMPING = 1e-3
_POSTURE_GAIN = 0.05
_MAX_JOINT_STEP_RAD = 0.05
# How far the target may run ahead of the arm: bounds the force when something is in the way.
_MAX_LEAD_M = 0.08
_MAX_LEAD_RAD = 0.8


class ArmController:
    """Turns end-effector pose targets into joint targets, on a copy of the arm that is never blocked.

    The copy follows the target exactly; the servos of the simulated arm follow the copy. Targets out
    of reach leave the copy at the nearest place the damped solution finds.

    Args:
        model: the compiled scene; its first seven joints are the arm.
    """

    def __init__(self, model: mujoco.MjModel) -> None:
        self._model = model
        self._ghost = mujoco.MjData(model)
        self._site = model.site("grip").id
        self._jacobian = np.zeros((6, model.nv))
        self._low, self._high = model.jnt_range[:_NUM_JOINTS].T.copy()
        self.target_position = np.zeros(3)
        self.target_rotation = DOWN.copy()

    def pose(self, data: mujoco.MjData) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the end effector's position [3] and rotation matrix [3, 3] in the world frame."""
        return data.site_xpos[self._site].copy(), data.site_xmat[self._site].reshape(3, 3).copy()

    def place(self, position: NDArray[np.float64], rotation: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return joint positions [7] that put the end effector there, and hold that pose as the target."""
        self.target_position, self.target_rotation = position.copy(), rotation.copy()
        self._ghost.qpos[:_NUM_JOINTS] = HOME_JOINTS
        for _ in range(120):
            self._advance(position, rotation)
        return np.array(self._ghost.qpos[:_NUM_JOINTS])

    def command(self, action: NDArray[np.float64], data: mujoco.MjData) -> None:
        """Move the target by a translation [0:3] m and a rotation vector [3:6] rad in the world frame."""
        position, rotation = self.pose(data)
        lead = self.target_position + action[:3] - position
        lead *= min(1.0, _MAX_LEAD_M / max(float(np.linalg.norm(lead)), 1e-9))
        self.target_position = np.clip(position + lead, WORKSPACE_LOW, WORKSPACE_HIGH)
        turned = rotation_vector_to_matrix(action[3:6]) @ self.target_rotation
        ahead = matrix_to_rotation_vector(turned @ rotation.T)
        ahead *= min(1.0, _MAX_LEAD_RAD / max(float(np.linalg.norm(ahead)), 1e-9))
        self.target_rotation = rotation_vector_to_matrix(ahead) @ rotation

    def joint_targets(self, fraction: float) -> NDArray[np.float64]:
        """Go `fraction` of the way from where the copy is to the target; return its joints [7], rad."""
        position, rotation = self.pose(self._ghost)
        turn = fraction * matrix_to_rotation_vector(self.target_rotation @ rotation.T)
        self._advance(
            position + fraction * (self.target_position - position),
            rotation_vector_to_matrix(turn) @ rotation,
        )
        return np.array(self._ghost.qpos[:_NUM_JOINTS])

    def _advance(self, position: NDArray[np.float64], rotation: NDArray[np.float64]) -> None:
        self._ghost.qpos[:_NUM_JOINTS] += self._joint_step(position, rotation)
        np.clip(self._ghost.qpos[:_NUM_JOINTS], self._low, self._high, out=self._ghost.qpos[:_NUM_JOINTS])
        self._update_ghost()

    def _joint_step(
        self, position: NDArray[np.float64], rotation: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        self._update_ghost()
        mujoco.mj_jacSite(self._model, self._ghost, self._jacobian[:3], self._jacobian[3:], self._site)
        here, turned = self.pose(self._ghost)
        error = np.concatenate([position - here, matrix_to_rotation_vector(rotation @ turned.T)])
        jacobian = self._jacobian[:, :_NUM_JOINTS]
        inverse = np.linalg.solve(jacobian @ jacobian.T + _DAMPING * np.eye(6), jacobian).T
        posture = _POSTURE_GAIN * (HOME_JOINTS - self._ghost.qpos[:_NUM_JOINTS])
        step = inverse @ error + posture - inverse @ (jacobian @ posture)
        return np.asarray(np.clip(step, -_MAX_JOINT_STEP_RAD, _MAX_JOINT_STEP_RAD))

    def _update_ghost(self) -> None:
        mujoco.mj_kinematics(self._model, self._ghost)
        mujoco.mj_comPos(self._model, self._ghost)
