"""Another look and another start for every episode of the tabletop: colours, light, cameras, first pose.

Objects and targets are placed by the world itself. Everything here is scaled by one strength, 0 for the
standard scene to 1.
"""

from __future__ import annotations

import colorsys

import numpy as np
from numpy.typing import NDArray

from lightvla_ros.core.rotation import rotation_vector_to_matrix
from lightvla_ros.sim.gl import mujoco
from lightvla_ros.sim.tabletop_scene import OBJECTS

# Largest changes, at strength 1. Shades stay the colour that instructions name.
_HUE = 8.0 / 360.0
_SATURATION_LOSS = 0.08
_VALUE_LOSS = 0.20
_TABLE_TINT = 0.25
_BACKGROUND_TINT = 0.30
_LIGHT = 0.25
_LIGHT_TINT = 0.06
_LIGHT_TURN_RAD = 0.5
# Per camera: m, rad, degrees of the field of view. The wrist camera is mounted, the other one stands.
_CAMERAS = {"third_person": (0.03, 0.03, 2.0), "wrist": (0.006, 0.03, 2.0)}
_START_M = np.array([0.04, 0.08, 0.05])
_START_TURN_RAD = 0.15

_FIELDS = ("geom_rgba", "mat_rgba", "cam_pos", "cam_quat", "cam_fovy", "light_dir", "light_diffuse")
_HEADLIGHT_FIELDS = ("ambient", "diffuse")


class SceneRandomizer:
    """Changes how a compiled scene looks; without a call the scene stays as it was compiled.

    Args:
        model: of the scene; its colours, lights and cameras are written.
    """

    def __init__(self, model: mujoco.MjModel) -> None:
        self._model = model
        self._standard = {name: getattr(model, name).copy() for name in _FIELDS}
        self._headlight = {name: getattr(model.vis.headlight, name).copy() for name in _HEADLIGHT_FIELDS}

    def apply(self, rng: np.random.Generator, strength: float) -> None:
        """Give the scene a look of its own, starting from the standard one each time."""
        for name, values in self._standard.items():
            getattr(self._model, name)[:] = values
        self._paint(rng, strength)
        self._light(rng, strength)
        for name, reach in _CAMERAS.items():
            self._move_camera(self._model.camera(name).id, rng, strength * np.array(reach))

    def _paint(self, rng: np.random.Generator, strength: float) -> None:
        for item in OBJECTS:
            geom = self._model.body(item.body).geomadr[0]
            self._model.geom_rgba[geom, :3] = _shade(item.rgb, rng, strength)
        for name in ("wood", "wicker"):
            tint = _factor(rng, _TABLE_TINT * strength) * _factor(rng, 0.3 * _TABLE_TINT * strength, 3)
            self._model.mat_rgba[self._model.material(name).id, :3] *= np.minimum(tint, 1.0)
        for name in ("floor", "wall"):
            tint = _factor(rng, _BACKGROUND_TINT * strength, 3)
            colour = self._model.geom_rgba[self._model.geom(name).id, :3]
            colour[:] = np.minimum(colour * tint, 1.0)

    def _light(self, rng: np.random.Generator, strength: float) -> None:
        brightness = _factor(rng, _LIGHT * strength) * _factor(rng, _LIGHT_TINT * strength, 3)
        for name, values in self._headlight.items():
            getattr(self._model.vis.headlight, name)[:] = np.clip(values * brightness, 0.0, 1.0)
        for light in range(self._model.nlight):
            turn = rotation_vector_to_matrix(_jitter(rng, _LIGHT_TURN_RAD * strength, 3))
            self._model.light_dir[light] = turn @ self._model.light_dir[light]
            self._model.light_diffuse[light] *= _factor(rng, _LIGHT * strength)

    def _move_camera(self, camera: int, rng: np.random.Generator, reach: NDArray[np.float64]) -> None:
        distance, turn, zoom = reach
        self._model.cam_pos[camera] += _jitter(rng, distance, 3)
        self._model.cam_fovy[camera] += _jitter(rng, zoom)
        rotation, quaternion = np.zeros(4), self._model.cam_quat[camera].copy()
        vector = _jitter(rng, turn, 3)
        angle = float(np.linalg.norm(vector))
        mujoco.mju_axisAngle2Quat(rotation, vector / max(angle, 1e-12), angle)
        mujoco.mju_mulQuat(self._model.cam_quat[camera], quaternion, rotation)


def moved_start(
    position: NDArray[np.float64], rotation: NDArray[np.float64], rng: np.random.Generator, strength: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return another start of the end effector: position [3], m, and rotation matrix [3, 3]."""
    turn = rotation_vector_to_matrix(_jitter(rng, _START_TURN_RAD * strength, 3))
    return position + _jitter(rng, 1.0, 3) * _START_M * strength, turn @ rotation


def _shade(rgb: tuple[float, float, float], rng: np.random.Generator, strength: float) -> NDArray[np.float64]:
    hue, saturation, value = colorsys.rgb_to_hsv(*rgb)
    hue = (hue + float(_jitter(rng, _HUE * strength))) % 1.0
    saturation *= 1.0 - strength * _SATURATION_LOSS * rng.random()
    value *= 1.0 - strength * _VALUE_LOSS * rng.random()
    return np.array(colorsys.hsv_to_rgb(hue, saturation, value))


def _jitter(rng: np.random.Generator, reach: float, size: int | None = None) -> NDArray[np.float64]:
    return np.asarray(rng.uniform(-reach, reach, size))


def _factor(rng: np.random.Generator, reach: float, size: int | None = None) -> NDArray[np.float64]:
    return 1.0 + _jitter(rng, reach, size)
