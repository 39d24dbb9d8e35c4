"""Where to grasp an object from above, judged by the surfaces of what lies about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# The Panda gripper, open and pointing down, about its grip site; three heights above the site.
HAND_M = 0.026
_PAD_TOP_M = 0.004
_FINGER_TIP_M = -0.012
_PAD_OPEN_M = 0.036
_PAD_HALF_THICK_M = 0.008
_FINGER_OUTSIDE_M = 0.060
_FINGER_HALF_THICK_M = 0.013
_HAND_HALF_WIDE_M = 0.108
_HAND_HALF_THICK_M = 0.034
_MARGIN_M = 0.002
# Where there is room, fingers keep so far from everything: the arm comes down no more exactly.
_AMPLE_M = 0.008

_SPACING_M = 0.006
_NEAR_M = 0.18

# What is tried: directions from the present one, steps from the object's middle along each, and depths.
_TURNS_RAD = np.linspace(-np.pi / 2.0, np.pi / 2.0, 24, endpoint=False)
_STEPS_M = np.arange(-0.075, 0.0751, 0.005)
_DEPTHS_M = np.arange(0.006, 0.045, 0.004)

# What a grasp costs: it may not hit or hold nothing; the others are weighed against each other.
_COST_NOTHING_HELD = 100.0
_COST_COLLISION = 5.0
_COST_TIGHT = 0.5
_COST_PER_RAD = 0.3
_COST_PER_M_HIGHER = 4.0
_COST_PER_M_OFF_CENTRE = 10.0
_COST_PER_M_BARE = 100.0
# Past this distance from the arm's base it comes near full stretch, where it is slow and tilts the hand.
_COMFORTABLE_M = 0.66
_COST_PER_M_FAR = 8.0


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Grasp:
    """A pose of the gripper, pointing down.

    Attributes:
        position: float64 [3], m, of the grip site in the world.
        closing: float64 [3], horizontal unit vector along which the fingers close.
        cost: what speaks against it; the least of all that were tried.
    """

    position: Array
    closing: Array
    cost: float


def surface_points(model: Any, data: Any, body: int) -> Array:
    """Sample the surface of the thing that a body is part of, each geom taken for its bounding box.

    Args:
        model: MuJoCo's model.
        data: MuJoCo's data, which say where the thing is now.
        body: number of one of its bodies.

    Returns:
        float64 [n, 3], m, in the world, about 6 mm apart.
    """
    solid = (model.body_rootid[model.geom_bodyid] == model.body_rootid[body]) & (model.geom_contype > 0)
    clouds = [np.zeros((0, 3))]
    for geom in np.flatnonzero(solid):
        centre, half = np.split(model.geom_aabb[geom], 2)
        rotation = data.geom_xmat[geom].reshape(3, 3)
        clouds.append(data.geom_xpos[geom] + (centre + _box_surface(half)) @ rotation.T)
    return np.concatenate(clouds)


def choose_grasp(item: Array, others: Array, *, closing: Array, base: Array, carry: Array) -> Grasp:
    """Find a grasp with the object between the fingers, which the open gripper can come down on freely.

    An object too wide to be held across is held by its rim. There is always an answer; where every grasp
    hits something, it is the one that hits least.

    Args:
        item: [n, 3], m, points of the object's surface in the world.
        others: [m, 3], m, points of everything else that may be in the way.
        closing: [3], horizontal unit vector along which the fingers close now; near it is better.
        base: [3], m, of the arm, which should neither have to reach far to grasp nor to let go.
        carry: [3], m, the way the object is to be carried after.
    """
    middle = (item.min(axis=0) + item.max(axis=0)) / 2.0
    lowest = item[:, 2].min() - _FINGER_TIP_M + _MARGIN_M
    heights = np.maximum(item[:, 2].max() - _DEPTHS_M, lowest)
    others = others[np.linalg.norm((others - middle)[:, :2], axis=1) < _NEAR_M]
    best = Grasp(position=middle, closing=closing, cost=np.inf)
    for turn in _TURNS_RAD:
        along = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]) @ closing[:2]
        axes = np.array([[along[0], along[1], 0.0], [-along[1], along[0], 0.0], [0.0, 0.0, 1.0]])
        costs = _costs((item - middle) @ axes.T, (others - middle) @ axes.T, heights - middle[2])
        costs += _COST_PER_RAD * abs(turn) + _COST_PER_M_HIGHER * (heights - heights.min())
        reach = middle - base + _STEPS_M[:, None] * axes[0]
        far = np.maximum(*(np.linalg.norm((reach + way)[:, :2], axis=1) for way in (np.zeros(3), carry)))
        costs += _COST_PER_M_FAR * np.maximum(far - _COMFORTABLE_M, 0.0)[:, None]
        step, level = np.unravel_index(np.argmin(costs), costs.shape)
        if costs[step, level] < best.cost:
            position = np.append((middle + _STEPS_M[step] * axes[0])[:2], heights[level])
            best = Grasp(position=position, closing=axes[0], cost=float(costs[step, level]))
    return best


def _costs(item: Array, others: Array, heights: Array) -> Array:
    """Return [steps, heights]: what speaks against each place, by what would be hit and what held.

    Points are given along the way of the fingers, across it, and up; heights as the third.
    """
    tips = heights + _FINGER_TIP_M - _MARGIN_M
    costs = np.zeros((len(_STEPS_M), len(heights)))
    for ample, cost in ((0.0, _COST_COLLISION), (_AMPLE_M, _COST_TIGHT)):
        half_thick, outside = _FINGER_HALF_THICK_M + ample, _FINGER_OUTSIDE_M + ample
        costs += cost * (_tops(item, half_thick, _PAD_OPEN_M, outside) > tips)
        # Nothing but the object may come between the fingers.
        costs += cost * (_tops(others, half_thick, 0.0, outside) > tips)
    under_hand = _tops(np.concatenate([item, others]), _HAND_HALF_THICK_M, 0.0, _HAND_HALF_WIDE_M)
    costs += _COST_COLLISION * (under_hand > heights + HAND_M - _MARGIN_M)
    padded = item[np.abs(item[:, 1]) < _PAD_HALF_THICK_M]
    for level, height in enumerate(heights):
        beside_pads = padded[(padded[:, 2] > height + _FINGER_TIP_M) & (padded[:, 2] < height + _PAD_TOP_M)]
        costs[:, level] += _costs_of_hold(beside_pads, height + _PAD_TOP_M)
    return costs


def _costs_of_hold(points: Array, pad_top: float) -> Array:
    """Return [steps]: what speaks against closing on those of the points that come between the pads."""
    costs = np.full(len(_STEPS_M), _COST_NOTHING_HELD)
    for number, step in enumerate(_STEPS_M):
        held = points[np.abs(points[:, 0] - step) < _PAD_OPEN_M]
        if len(held):
            off_centre = abs((held[:, 0].min() + held[:, 0].max()) / 2.0 - step)
            bare = pad_top - held[:, 2].max()
            costs[number] = _COST_PER_M_OFF_CENTRE * off_centre + _COST_PER_M_BARE * bare
    return costs


def _tops(points: Array, half_thick: float, inside: float, outside: float) -> Array:
    """Return [steps, 1]: how high points reach that are `inside` to `outside` metres off on either side."""
    strip = points[np.abs(points[:, 1]) < half_thick]
    off = np.abs(strip[:, 0] - _STEPS_M[:, None])
    reached = np.where((off >= inside) & (off < outside), strip[:, 2], -np.inf)
    return np.asarray(reached.max(axis=1, keepdims=True, initial=-np.inf))


def _box_surface(half: Array) -> Array:
    """Return [n, 3]: points of the surface of a box about its centre."""
    axes = [np.linspace(-size, size, 2 + int(2.0 * size / _SPACING_M)) for size in half]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    return np.asarray(grid[(np.abs(grid) >= half).any(axis=1)])
