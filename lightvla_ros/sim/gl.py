"""MuJoCo with a graphics backend that works without a display.

MuJoCo reads `MUJOCO_GL` once, when it is first imported, so the choice has to be made here, before
that import; every module of this folder takes `mujoco` from here.
"""

from __future__ import annotations

import ctypes
import os

from lightvla_ros.core.errors import ConfigError

_LIBRARIES = {
    "egl": ("libEGL.so.1", "libEGL.so"),
    "osmesa": ("libOSMesa.so.8", "libOSMesa.so.6", "libOSMesa.so"),
}
_FIX = "apt-get install libegl1 libgl1-mesa-dri (or libosmesa6 with MUJOCO_GL=osmesa)"


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def choose_backend() -> str:
    """Return the MuJoCo graphics backend to use: the user's choice, else EGL, else OSMesa, else none."""
    chosen = os.environ.get("MUJOCO_GL", "").strip().lower()
    if chosen:
        return chosen
    for backend, libraries in _LIBRARIES.items():
        if any(_loads(library) for library in libraries):
            return backend
    return "disable"


os.environ["MUJOCO_GL"] = choose_backend()

import mujoco  # noqa: E402  (see the module's docstring)


def create_renderer(model: mujoco.MjModel, image_size: int, *, effects: bool = False) -> mujoco.Renderer:
    """Create an off-screen renderer of square images.

    Args:
        model: what it draws.
        image_size: pixels, height and width.
        effects: whether it draws shadows and reflections.

    Raises:
        ConfigError: no graphics backend works here.
    """
    backend = os.environ["MUJOCO_GL"]
    if backend == "disable":
        raise ConfigError("rendering", got="no EGL or OSMesa library", expected="one of them", fix=_FIX)
    try:
        renderer = mujoco.Renderer(model, image_size, image_size)
    except Exception as error:  # noqa: BLE001  (each GL binding raises its own kind)
        raise ConfigError(
            "rendering", got=f"MUJOCO_GL={backend}: {error}", expected="a working backend", fix=_FIX
        ) from error
    renderer.scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = effects
    renderer.scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = effects
    return renderer


__all__ = ["choose_backend", "create_renderer", "mujoco"]
