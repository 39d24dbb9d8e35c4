"""A MuJoCo scene whose visual meshes have few of their triangles, for as long as a renderer is made.

LIBERO's objects are scans of up to 66 000 triangles each, of which a picture of 256 pixels shows little. A
renderer reads meshes and textures once, when it is made; so a scene is light only that long, and the
simulation's own model draws with what the renderer has read. That is quicker than compiling a second model,
takes no memory, and leaves nothing to keep in step.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from lightvla_ros.sim.gl import mujoco
from lightvla_ros.sim.libero.mesh_simplification import Surface, simplify

KEPT_FRACTION = 0.15
MIN_FACES = 2000
# Pixels. Of larger textures, our small pictures show a coarser level anyway, and reading them takes seconds.
MAX_TEXTURE_SIZE = 1024

# Is part of the key of what is stored: count up when `simplify` gives something else.
_VERSION = 1


@contextlib.contextmanager
def light_model(model: mujoco.MjModel) -> Iterator[None]:
    """Within the context, a model has simple visual meshes, small textures, and no multisampling or shadows.

    Afterwards the model is as before. Meshes that touch anything are left alone. A mesh is simplified once
    and then comes from memory or the user's cache directory.
    """
    with contextlib.ExitStack() as undo:
        for mesh in _visual_meshes(model):
            _lighten_mesh(model, mesh, undo)
        for texture in range(model.ntex):
            _lighten_texture(model, texture, undo)
        quality = model.vis.quality
        for name in ("offsamples", "shadowsize"):
            undo.callback(setattr, quality, name, getattr(quality, name))
            setattr(quality, name, 0)
        yield


def _visual_meshes(model: mujoco.MjModel) -> set[int]:
    """Return the meshes that geoms show and that touch nothing."""
    is_mesh = model.geom_type == mujoco.mjtGeom.mjGEOM_MESH
    touches = (model.geom_contype != 0) | (model.geom_conaffinity != 0)
    shown, touching = (set(model.geom_dataid[is_mesh & which].tolist()) for which in (~touches, touches))
    return shown - touching


def _lighten_mesh(model: mujoco.MjModel, mesh: int, undo: contextlib.ExitStack) -> None:
    original = _surface(model, mesh)
    face_count = max(MIN_FACES, round(KEPT_FRACTION * len(original.faces)))
    if face_count >= len(original.faces):
        return
    simple = _simplified(original, face_count)
    stored, offered = _arrays(original), _arrays(simple)
    if any(len(new) > len(old) for old, new in zip(stored, offered, strict=True)):
        return  # no room for normals of each corner; such meshes are small
    for old, new in zip(stored, offered, strict=True):
        _overwrite(old[: len(new)], new, undo)
    _overwrite(model.mesh_facenum[mesh : mesh + 1], len(simple.faces), undo)


def _surface(model: mujoco.MjModel, mesh: int) -> Surface:
    """Return a mesh of the model as views of its arrays."""

    def part(array: NDArray[Any], start: NDArray[Any], count: NDArray[Any]) -> NDArray[Any]:
        # Without texture, the start is -1 and the count zero.
        return array[max(start[mesh], 0) :][: count[mesh]]

    faces = model.mesh_faceadr, model.mesh_facenum
    return Surface(
        vertices=part(model.mesh_vert, model.mesh_vertadr, model.mesh_vertnum),
        faces=part(model.mesh_face, *faces),
        normals=part(model.mesh_normal, model.mesh_normaladr, model.mesh_normalnum),
        normal_faces=part(model.mesh_facenormal, *faces),
        texcoords=part(model.mesh_texcoord, model.mesh_texcoordadr, model.mesh_texcoordnum),
        texcoord_faces=part(model.mesh_facetexcoord, *faces),
    )


def _lighten_texture(model: mujoco.MjModel, texture: int, undo: contextlib.ExitStack) -> None:
    height, width = int(model.tex_height[texture]), int(model.tex_width[texture])
    scale = MAX_TEXTURE_SIZE / max(height, width)
    # Cubes have their six sides in one picture.
    if scale >= 1 or model.tex_type[texture] != mujoco.mjtTexture.mjTEXTURE_2D:
        return
    pixels = model.tex_data[model.tex_adr[texture] :]
    channels = int(model.tex_nchannel[texture])
    large = pixels[: height * width * channels].reshape(height, width, channels)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(large, size, interpolation=cv2.INTER_AREA)
    _overwrite(pixels[: small.size], small.reshape(-1), undo)
    _overwrite(model.tex_width[texture : texture + 1], size[0], undo)
    _overwrite(model.tex_height[texture : texture + 1], size[1], undo)


def _overwrite(array: NDArray[Any], values: NDArray[Any] | int, undo: contextlib.ExitStack) -> None:
    undo.callback(np.copyto, array, array.copy())
    array[:] = values


# By content; also stored in the user's cache directory.
SIMPLIFIED: dict[str, Surface] = {}


def _simplified(surface: Surface, face_count: int) -> Surface:
    """`simplify`, from memory or the user's cache directory if possible."""
    key = _digest(surface, face_count)
    if key not in SIMPLIFIED:
        path = _cache_directory() / f"{key}.npz"
        stored = _read(path)
        if stored is None:
            stored = simplify(surface, face_count)
            _write(path, stored)
        SIMPLIFIED[key] = stored
    return SIMPLIFIED[key]


def _digest(surface: Surface, face_count: int) -> str:
    digest = hashlib.blake2b(f"{_VERSION} {face_count}".encode(), digest_size=16)
    for array in _arrays(surface):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _cache_directory() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lightvla_ros" / "meshes"


def _arrays(surface: Surface) -> list[NDArray[Any]]:
    return [getattr(surface, field.name) for field in fields(surface)]


def _read(path: Path) -> Surface | None:
    try:
        with np.load(path) as stored:
            return Surface(**stored)
    except (OSError, ValueError, TypeError, zipfile.BadZipFile):  # missing, or not ours
        return None


def _write(path: Path, surface: Surface) -> None:
    """Store a surface, unless the directory does not let us; another process may do the same right now."""
    arrays = {field.name: getattr(surface, field.name) for field in fields(surface)}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            np.savez(Path(folder) / path.name, **arrays)
            os.replace(Path(folder) / path.name, path)
    except OSError:
        pass
