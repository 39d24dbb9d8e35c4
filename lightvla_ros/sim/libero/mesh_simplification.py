"""Surfaces with few triangles that look like those with many: shape, shading and texture."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# The library judges errors by absolute size and so needs meshes of one size; with these, all of LIBERO's keep
# their shape.
_SIZE = 10.0
_AGGRESSIVENESS = 4.0
# Places on the original where those nearest to a point are looked for, and how many are compared.
_SAMPLES_PER_FACE = 4
_CANDIDATES = 8


@dataclass(frozen=True, slots=True)
class Surface:
    """Triangles with a normal and, perhaps, a place in a texture for each corner.

    Attributes:
        vertices: float32 [vertex, 3], metres.
        faces: int32 [face, 3], indices of vertices.
        normals: float32 [normal, 3].
        normal_faces: int32 [face, 3], indices of normals.
        texcoords: float32 [texcoord, 2]; none where the mesh has no texture.
        texcoord_faces: int32 [face, 3], indices of texcoords; meaningless without texcoords.
    """

    vertices: NDArray[np.float32]
    faces: NDArray[np.int32]
    normals: NDArray[np.float32]
    normal_faces: NDArray[np.int32]
    texcoords: NDArray[np.float32]
    texcoord_faces: NDArray[np.int32]

    @property
    def is_textured(self) -> bool:
        """Whether it has places in a texture."""
        return len(self.texcoords) > 0


def simplify(surface: Surface, face_count: int) -> Surface:
    """Return a surface of about `face_count` triangles, which look as the original ones at their place.

    Vertices are new; a corner's normal and place in the texture are those of the original surface nearby.
    """
    import fast_simplification

    points, welded = _weld(surface.vertices[surface.faces].reshape(-1, 3))
    scale = _SIZE / np.ptp(points, axis=0).max()
    vertices, faces = fast_simplification.simplify(
        points * scale, welded.reshape(-1, 3), target_count=face_count, agg=_AGGRESSIVENESS
    )
    vertices, faces = (vertices / scale).astype(np.float32), faces.astype(np.int32)
    normals, texcoords = _attributes_at(surface, vertices[faces])
    each_corner = np.arange(faces.size, dtype=np.int32).reshape(-1, 3)
    return Surface(vertices, faces, normals, each_corner, texcoords, each_corner)


def _weld(rows: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.intp]]:
    """Return the different rows, and for each given row the index of its equal."""
    different, index = np.unique(rows, axis=0, return_inverse=True)
    return different, index.reshape(-1)


def _attributes_at(
    surface: Surface, triangles: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Look up normals and places in the texture for the corners of triangles close to a surface.

    A texture is cut along lines on the surface, and a corner near one has two places. It gets that on the
    side of its triangle's middle, from where the texture is continued linearly.

    Args:
        surface: where from.
        triangles: [triangle, corner, 3].

    Returns:
        float32 [3 * triangle, 3] normals and float32 [3 * triangle, 2] places, or [0, 2] without texture.
    """
    source = _Source(surface)
    directions = _directions(triangles)
    expected = None
    if surface.is_textured:
        middles = triangles.mean(axis=1)
        faces, weights = source.find(middles, directions)
        expected = source.continue_texture(faces, weights, triangles - middles[:, None]).reshape(-1, 2)
    corners = triangles.reshape(-1, 3)
    faces, weights = source.find(corners, np.repeat(directions, 3, axis=0), expected)
    normals = _blend(weights, surface.normals[surface.normal_faces[faces]])
    places = _blend(weights, source.places[faces]) if surface.is_textured else np.empty((0, 2))
    return _normalized(normals).astype(np.float32), places.astype(np.float32)


class _Source:
    """A surface on which points close to it find their like: near, facing the same way, alike in texture.

    Attributes:
        places: float64 [face, corner, 2] in the texture; zeros without one.
    """

    def __init__(self, surface: Surface) -> None:
        self._triangles = surface.vertices[surface.faces].astype(np.float64)
        self._directions = _directions(self._triangles)
        self.places = np.zeros((*surface.faces.shape, 2))
        if surface.is_textured:
            self.places[:] = surface.texcoords[surface.texcoord_faces]
        # All in metres: how much nearer a point must be if it faces the opposite way, and how large the
        # texture is on the surface.
        self._turn_cost = 0.1 * float(np.ptp(surface.vertices, axis=0).max())
        self._texture_size = math.sqrt(_areas(self._triangles).sum() / max(_areas(self.places).sum(), 1e-9))
        self._samples = _samples(self._triangles)
        self._trees: dict[bool, Any] = {}

    def find(
        self,
        points: NDArray[np.floating],
        directions: NDArray[np.floating],
        places: NDArray[np.floating] | None = None,
    ) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """Return for each point a face [point] and the weights [point, 3] of its corners there.

        Args:
            points: [point, 3].
            directions: [point, 3], unit vectors normal to the surface wanted.
            places: [point, 2], expected in the texture; None where they do not matter.
        """
        keys = self._keys(points, directions, places)
        _, found = self._tree(places is not None).query(keys, k=_CANDIDATES)
        faces = self._samples[0][found]
        weights = _inside(_weights(self._triangles[faces], points[:, None]))
        offsets = keys[:, None] - self._keys(
            _blend(weights, self._triangles[faces]),
            self._directions[faces],
            None if places is None else _blend(weights, self.places[faces]),
        )
        best = np.arange(len(points)), np.linalg.norm(offsets, axis=-1).argmin(axis=1)
        return faces[best], weights[best]

    def continue_texture(
        self, faces: NDArray[np.intp], weights: NDArray[np.float64], offsets: NDArray[np.floating]
    ) -> NDArray[np.float64]:
        """Return places [point, offset, 2] at offsets [point, offset, 3] from points on faces."""
        start = _blend(weights, self.places[faces])[:, None]
        points = _blend(weights, self._triangles[faces])[:, None] + offsets
        change = (
            _blend(_weights(self._triangles[faces][:, None], points), self.places[faces][:, None]) - start
        )
        # A needle of a triangle says nothing about what is beside it.
        limit = 2 * np.linalg.norm(offsets, axis=-1, keepdims=True) / self._texture_size
        length = np.linalg.norm(change, axis=-1, keepdims=True)
        return np.asarray(start + change * np.minimum(1, limit / np.maximum(length, 1e-12)))

    def _tree(self, with_places: bool) -> Any:
        from scipy.spatial import cKDTree  # type: ignore[import-untyped]

        if with_places not in self._trees:
            faces, weights = self._samples
            points, places = _blend(weights, self._triangles[faces]), _blend(weights, self.places[faces])
            keys = self._keys(points, self._directions[faces], places if with_places else None)
            self._trees[with_places] = cKDTree(keys, balanced_tree=False, compact_nodes=False)
        return self._trees[with_places]

    def _keys(
        self,
        points: NDArray[np.floating],
        directions: NDArray[np.floating],
        places: NDArray[np.floating] | None,
    ) -> NDArray[np.float64]:
        """Return coordinates in metres [..., 6 or 8] in which what is alike is near."""
        parts = [points, self._turn_cost / 2 * directions]
        if places is not None:
            parts.append(self._texture_size * places)
        return np.concatenate(parts, axis=-1, dtype=np.float64)


def _weights(triangles: NDArray[np.float64], points: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return weights [..., 3] of triangles' corners [..., 3, 3] at the points [..., 3] of their planes."""
    origin = triangles[..., 0, :]
    first, second = triangles[..., 1, :] - origin, triangles[..., 2, :] - origin
    offset = points - origin
    a, b, c = _dot(first, first), _dot(first, second), _dot(second, second)
    along_first, along_second = _dot(offset, first), _dot(offset, second)
    area = np.maximum(a * c - b * b, 1e-30)
    u = (c * along_first - b * along_second) / area
    v = (a * along_second - b * along_first) / area
    return np.stack([1 - u - v, u, v], axis=-1)


def _inside(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Move a point beside its triangle onto the triangle, close to the nearest point."""
    weights = np.clip(weights, 0, 1)
    return np.asarray(weights / weights.sum(axis=-1, keepdims=True))


def _blend(weights: NDArray[np.float64], values: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return values [..., n] in triangles whose corners have values [..., 3, n], by weights [..., 3]."""
    return np.asarray(np.einsum("...c,...cn->...n", weights, values))


def _dot(left: NDArray[np.floating], right: NDArray[np.floating]) -> NDArray[np.floating]:
    return np.asarray(np.einsum("...n,...n->...", left, right))


def _samples(triangles: NDArray[np.float64]) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Return faces [sample] and weights [sample, 3]: each triangle's middle, and more of large triangles."""
    count = len(triangles)
    areas = _areas(triangles)
    random = np.random.default_rng(0)
    more = random.choice(count, _SAMPLES_PER_FACE * count, p=areas / areas.sum())
    weights = np.concatenate([np.full((count, 3), 1 / 3), random.dirichlet(np.ones(3), len(more))])
    return np.concatenate([np.arange(count), more]), weights


def _areas(triangles: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the areas [triangle] of triangles [triangle, corner, 2 or 3]."""
    first, second = (triangles[:, corner] - triangles[:, 0] for corner in (1, 2))
    squares = _dot(first, first) * _dot(second, second) - _dot(first, second) ** 2
    return np.asarray(np.sqrt(np.maximum(squares, 0)) / 2)


def _directions(triangles: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return the unit normals [triangle, 3] of triangles [triangle, corner, 3]."""
    first, second = (triangles[:, corner] - triangles[:, 0] for corner in (1, 2))
    return _normalized(np.cross(first, second))


def _normalized(vectors: NDArray[np.floating]) -> NDArray[np.floating]:
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12))
