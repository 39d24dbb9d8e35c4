"""Pictures of a LIBERO scene: as LIBERO draws them, or several times as fast and nearly so."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lightvla_ros.sim.gl import create_renderer, mujoco
from lightvla_ros.sim.libero.light_model import light_model


class CameraRenderer(Protocol):
    """Draws the present state of one environment.

    Args:
        environment: LIBERO's, after its reset; a reset makes a new scene and wants a new renderer.
        image_size: pixels, height and width.

    Raises:
        ConfigError: no graphics backend works here.
    """

    def __init__(self, environment: Any, image_size: int) -> None: ...

    def render(self, camera: str) -> NDArray[np.uint8]:
        """Return what a camera sees now, uint8 [image_size, image_size, 3] RGB, upright."""
        ...

    def close(self) -> None:
        """Free the graphics context."""
        ...


def _visible_only() -> mujoco.MjvOption:
    options = mujoco.MjvOption()
    options.geomgroup[0] = 0  # collision shapes
    return options


def use_linear_textures(model: mujoco.MjModel) -> None:
    """Have textures read as LIBERO's training data were drawn: newer MuJoCo honours PNG's colour space."""
    model.tex_colorspace[:] = mujoco.mjtColorSpace.mjCOLORSPACE_LINEAR


class ExactRenderer:
    """`CameraRenderer` of the environment's own model, with shadows, reflections and multisampling."""

    def __init__(self, environment: Any, image_size: int) -> None:
        self._data = environment.sim.data._data
        model = environment.sim.model._model
        use_linear_textures(model)
        self._renderer = create_renderer(model, image_size, effects=True)
        self._options = _visible_only()

    def render(self, camera: str) -> NDArray[np.uint8]:
        """Draw; see `CameraRenderer.render`."""
        self._renderer.update_scene(self._data, camera=camera, scene_option=self._options)
        return np.asarray(self._renderer.render())

    def close(self) -> None:
        """Free the graphics context."""
        self._renderer.close()


class FastRenderer:
    """`CameraRenderer` of a light scene, without shadows and multisampling.

    The environment's own model says what is where, `light_model` only what it looks like. Reflections stay
    where they matter: without the bright wall in it, the stove is black instead of white for the
    third-person camera. What the wrist's camera, which looks down, would see mirrored is dark.
    """

    def __init__(self, environment: Any, image_size: int) -> None:
        self._data = environment.sim.data._data
        self._model = environment.sim.model._model
        use_linear_textures(self._model)
        with light_model(self._model):
            self._renderer = create_renderer(self._model, image_size)
        self._options = _visible_only()

    def render(self, camera: str) -> NDArray[np.uint8]:
        """Draw; see `CameraRenderer.render`."""
        scene = self._renderer.scene
        scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = self._stands_still(camera)
        self._renderer.update_scene(self._data, camera=camera, scene_option=self._options)
        return np.asarray(self._renderer.render())

    def close(self) -> None:
        """Free the graphics context."""
        self._renderer.close()

    def _stands_still(self, camera: str) -> bool:
        return int(self._model.camera(camera).bodyid[0]) == 0
