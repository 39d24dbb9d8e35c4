"""The cache of simple meshes, without LIBERO's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lightvla_ros.sim.libero import light_model
from lightvla_ros.sim.libero.mesh_simplification import Surface

CORNERS = np.array([[0, 1, 2]], dtype=np.int32)
TRIANGLE = Surface(
    vertices=np.eye(3, dtype=np.float32),
    faces=CORNERS,
    normals=np.ones((3, 3), dtype=np.float32),
    normal_faces=CORNERS,
    texcoords=np.zeros((0, 2), dtype=np.float32),
    texcoord_faces=CORNERS,
)


def test_a_surface_is_read_as_it_was_stored(tmp_path: Path) -> None:
    path = tmp_path / "meshes" / "triangle.npz"
    light_model._write(path, TRIANGLE)
    stored = light_model._read(path)
    assert stored is not None
    np.testing.assert_array_equal(stored.vertices, TRIANGLE.vertices)
    assert list(path.parent.iterdir()) == [path]


def test_a_full_disk_is_left_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(np, "savez", fail)
    light_model._write(tmp_path / "triangle.npz", TRIANGLE)
    assert not list(tmp_path.iterdir())
