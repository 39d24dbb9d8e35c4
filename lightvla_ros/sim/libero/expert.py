"""A scripted expert for LIBERO's pick-and-place tasks, with privileged knowledge of where things are."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lightvla_ros.core.errors import ConfigError
from lightvla_ros.core.rotation import matrix_to_rotation_vector
from lightvla_ros.sim.libero.grasp import HAND_M, choose_grasp, surface_points
from lightvla_ros.sim.libero.world import LiberoWorld
from lightvla_ros.sim.motion import ramp, speed_along
from lightvla_ros.sim.world import CLOSE, OPEN, ROTATION_SCALE_RAD

Array = NDArray[np.float64]

# Speeds, in the units of an action, and how much one may differ from the last.
_GAIN = 0.8
_MAX_ACROSS = 0.8
_MAX_UP = 0.8
_MAX_DOWN = 0.7
_TURN_GAIN = 1.5
_MAX_TURN = 0.3
_MAX_CHANGE = 0.25

# How high to go: above a grasp, and above what stands so near to the way.
_HOVER_M = 0.08
_CLEARANCE_M = 0.03
_CORRIDOR_M = 0.07
# What reaches so far above the object is kept so far from it while it is lifted.
_OVERHEAD_M = 0.008
_ASIDE_M = 0.008

# What counts as there, moved, still, open.
_GRASP_REACH_M = 0.008
# The object may shift while the fingers close.
_CLOSING_REACH_M = 0.025
_ACROSS_REACH_M = 0.015
_RELEASE_REACH_M = 0.012
# LIBERO wants it within 3 cm of the plate's middle.
_OVER_TARGET_M = 0.03
_PLACED_M = 0.02
_MOVED_M = 0.02
_RESTING_M_PER_S = 0.05
_FINGERS_STILL_M_PER_S = 0.01
_FINGERS_OPEN_M = 0.035
_FINGERS_EMPTY_M = 0.002

# Of the object above the basket's or the plate's floor when it is let go, and of the hand above the rim.
_DROP_IN_BASKET_M = 0.03
_DROP_ON_PLATE_M = 0.006
_HAND_OVER_BASKET_M = 0.012
_PLATE_FLAT_RADIUS_M = 0.04


class LiberoExpert:
    """Picks up the object of a task and places it in the basket or on the plate.

    Where to grasp and how high to go is planned in `reset`, and again when the object was missed or lost;
    all else follows from the present state. Same initial state, same actions.
    """

    def reset(self, world: LiberoWorld) -> None:
        """Plan for the episode that the world has just begun.

        Raises:
            ConfigError: the task is not to put one object in a basket or on a plate.
        """
        self._scene = _Scene(world)
        self._motion = np.zeros(6)
        self._gripper = OPEN
        self._plan()

    def act(self, world: LiberoWorld) -> Array:
        """Return the action [7] for the present state, as `World.step` takes it, each |value| <= 1."""
        if self._scene.is_held():
            offset, self._gripper = self._carry()
        elif self._scene.is_placed():
            offset, self._gripper = self._retreat()
        else:
            offset, self._gripper = self._approach()
        speed = speed_along(offset, gain=_GAIN, max_across=_MAX_ACROSS, max_up=_MAX_UP, max_down=_MAX_DOWN)
        wanted = np.concatenate([speed, self._turn()])
        # No jerks: neither the arm nor a policy that copies this could follow them.
        self._motion = self._motion + np.clip(wanted - self._motion, -_MAX_CHANGE, _MAX_CHANGE)
        return np.append(self._motion, self._gripper)

    def _plan(self) -> None:
        scene = self._scene
        item, others = scene.item_points(), scene.other_points()
        start, target = scene.item_position(), scene.target_position()
        grasp = choose_grasp(
            item,
            others,
            closing=_level(scene.gripper_rotation()[:, 0]),
            base=scene.base_position(),
            carry=target - start,
        )
        self._planned_for = start
        self._overhead = others[others[:, 2] > item[:, 2].max() + _OVERHEAD_M]
        self._closing = grasp.closing
        self._hold = grasp.position - start
        way_there = _top_between(others, scene.gripper_position(), start)
        self._approach_height = max(grasp.position[2] + _HOVER_M, way_there + _CLEARANCE_M)
        # Of the object's lowest point.
        self._carry_height = max(item[:, 2].min(), _top_between(others, start, target)) + _CLEARANCE_M

    def _approach(self) -> tuple[Array, float]:
        """Come in through a funnel above the object: the nearer across, the lower; close at the bottom."""
        scene = self._scene
        missed = self._gripper == CLOSE and scene.finger_opening() < _FINGERS_EMPTY_M
        moved = np.linalg.norm(scene.item_position() - self._planned_for) > _MOVED_M
        if missed or (moved and scene.item_speed() < _RESTING_M_PER_S):
            self._plan()
        offset = scene.item_position() + self._hold - scene.gripper_position()
        off = float(np.abs(offset).max())
        is_open = scene.finger_opening() > _FINGERS_OPEN_M
        if self._gripper == CLOSE and off < _CLOSING_REACH_M and not missed:
            return offset, CLOSE
        if is_open and off < _GRASP_REACH_M:
            return offset, CLOSE
        across, angle = float(np.linalg.norm(offset[:2])), float(np.linalg.norm(self._turn_left()))
        # Closed fingers would push the object down.
        far = max(ramp(across, 0.005, 0.03), ramp(angle, 0.08, 0.3)) if is_open else 1.0
        return _through_funnel(offset, far, self._approach_height - scene.gripper_position()[2]), OPEN

    def _carry(self) -> tuple[Array, float]:
        """Lift, go across, come down over the target, let go."""
        scene = self._scene
        if self._gripper == CLOSE and scene.finger_speed() > _FINGERS_STILL_M_PER_S:
            return np.zeros(3), CLOSE
        offset = scene.target_position() - scene.item_position()
        bottom = scene.item_points()[:, 2].min()
        offset[2] = max(scene.drop_height - bottom, scene.lowest_hand - HAND_M - scene.gripper_position()[2])
        across = float(np.linalg.norm(offset[:2]))
        if across < _ACROSS_REACH_M and abs(offset[2]) < _RELEASE_REACH_M:
            return np.zeros(3), OPEN
        far, rise = ramp(across, 0.012, 0.06), self._carry_height - bottom
        aside = self._out_from_below()
        # An object that catches on what is above it slips out of the fingers.
        rise *= 1.0 - ramp(float(np.linalg.norm(aside)), 0.004, 0.012)
        return _through_funnel(offset, far, rise) + aside, CLOSE

    def _out_from_below(self) -> Array:
        """Return the way [3], m, to where nothing is above the object or nearly so: out of a drawer."""
        item = self._scene.item_points()
        above = self._overhead[self._overhead[:, 2] > item[:, 2].max()]
        away = ((item.min(axis=0) + item.max(axis=0)) / 2.0 - above) * [1.0, 1.0, 0.0]
        distances = np.linalg.norm(away, axis=1)
        radius = float((item.max(axis=0) - item.min(axis=0))[:2].max()) / 2.0 + _ASIDE_M
        if not len(above) or distances.min() > radius:
            return np.zeros(3)
        nearest = int(distances.argmin())
        return np.asarray(away[nearest] * (radius / max(distances[nearest], 1e-9) - 1.0))

    def _retreat(self) -> tuple[Array, float]:
        """Go up, once the fingers are wide enough not to take the object along."""
        free = ramp(self._scene.finger_opening(), 0.5 * _FINGERS_OPEN_M, _FINGERS_OPEN_M)
        return np.array([0.0, 0.0, free * _HOVER_M]), OPEN

    def _turn_left(self) -> Array:
        """Return the rotation vector [3], rad, that is left to the orientation of the grasp."""
        rotation = self._scene.gripper_rotation()
        # The two fingers are alike.
        closing = self._closing * (1.0 if self._closing @ rotation[:, 0] > 0.0 else -1.0)
        down = np.array([0.0, 0.0, -1.0])
        wanted = np.column_stack([closing, np.cross(down, closing), down])
        return matrix_to_rotation_vector(wanted @ rotation.T)

    def _turn(self) -> Array:
        turn = _TURN_GAIN * self._turn_left() / ROTATION_SCALE_RAD
        return np.asarray(turn * min(1.0, _MAX_TURN / max(float(np.linalg.norm(turn)), 1e-9)))


class _Scene:
    """What the expert knows of an episode: LIBERO's goal and MuJoCo's present state; m, in the world.

    Attributes:
        drop_height: of the object's lowest point, m, where it can be let go.
        lowest_hand: m, that the hand must stay above where it lets go.
    """

    def __init__(self, world: LiberoWorld) -> None:
        robosuite = world.simulation.env
        self._model, self._data = robosuite.sim.model._model, robosuite.sim.data._data
        item, target = _goal(world)
        self._bodies: dict[str, int] = robosuite.obj_body_id
        self._item, self._target = self._bodies[item], self._bodies[target]
        self._item_geoms = np.flatnonzero(self._model.body_rootid[self._model.geom_bodyid] == self._item)
        self._item_speed = slice(dof := int(self._model.body_dofadr[self._item]), dof + 3)
        self._site = self._model.site("gripper0_grip_site").id
        self._finger_geoms = [
            [self._model.geom(f"gripper0_finger{side}_{part}").id for part in ("collision", "pad_collision")]
            for side in (1, 2)
        ]
        self._fingers = [self._model.joint(f"gripper0_finger_joint{side}") for side in (1, 2)]
        points = surface_points(self._model, self._data, self._item) - self.item_position()
        self._item_shape = points @ self._item_rotation()
        self.drop_height, self.lowest_hand = self._measure_target(in_basket=target.startswith("basket"))

    def _measure_target(self, *, in_basket: bool) -> tuple[float, float]:
        points = surface_points(self._model, self._data, self._target)
        if in_basket:
            return float(points[:, 2].min()) + _DROP_IN_BASKET_M, float(
                points[:, 2].max()
            ) + _HAND_OVER_BASKET_M
        off = np.linalg.norm((points - self.target_position())[:, :2], axis=1)
        return float(points[off < _PLATE_FLAT_RADIUS_M, 2].max()) + _DROP_ON_PLATE_M, -np.inf

    def item_position(self) -> Array:
        return np.array(self._data.xpos[self._item])

    def item_speed(self) -> float:
        return float(np.linalg.norm(self._data.qvel[self._item_speed]))

    def item_points(self) -> Array:
        return np.asarray(self.item_position() + self._item_shape @ self._item_rotation().T)

    def other_points(self) -> Array:
        others = (body for body in self._bodies.values() if body != self._item)
        return np.concatenate([surface_points(self._model, self._data, body) for body in others])

    def target_position(self) -> Array:
        return np.array(self._data.xpos[self._target])

    def base_position(self) -> Array:
        return np.array(self._data.body("robot0_link0").xpos)

    def gripper_position(self) -> Array:
        return np.array(self._data.site_xpos[self._site])

    def gripper_rotation(self) -> Array:
        """Return [3, 3]; the first column is the way the fingers close, the third where they point."""
        return np.array(self._data.site_xmat[self._site].reshape(3, 3))

    def finger_opening(self) -> float:
        """Return how far a finger is from closed, m, the mean of both."""
        return float(np.mean([abs(self._data.qpos[finger.qposadr[0]]) for finger in self._fingers]))

    def finger_speed(self) -> float:
        return float(max(abs(self._data.qvel[finger.dofadr[0]]) for finger in self._fingers))

    def is_held(self) -> bool:
        """Whether both fingers touch the object."""
        touching = self._data.contact.geom
        of_item = np.isin(touching[:, ::-1], self._item_geoms)
        return all((of_item & np.isin(touching, finger)).any() for finger in self._finger_geoms)

    def is_placed(self) -> bool:
        """Whether the object is where it is let go, or has come down from there."""
        off = np.linalg.norm((self.item_position() - self.target_position())[:2])
        return bool(off < _OVER_TARGET_M and self.item_points()[:, 2].min() < self.drop_height + _PLACED_M)

    def _item_rotation(self) -> Array:
        return np.array(self._data.xmat[self._item].reshape(3, 3))


def _goal(world: LiberoWorld) -> tuple[str, str]:
    """Return the names of the object and of the basket or plate that it is to be put in or on."""
    robosuite = world.simulation.env
    goal = robosuite.parsed_problem["goal_state"]
    if len(goal) == 1 and len(goal[0]) == 3 and goal[0][1] in robosuite.objects_dict:
        relation, item, target = goal[0]
        container = target.removesuffix("_contain_region")
        if relation == "in" and container.startswith("basket_") and container != target:
            return item, container
        if relation == "on" and target.startswith("plate_"):
            return item, target
    raise ConfigError(
        "task for the LIBERO expert",
        got=repr(world.instruction),
        expected="one object to be put in the basket or on the plate",
        fix="take a task of libero_object or libero_spatial",
    )


def _through_funnel(offset: Array, far: float, rise: float) -> Array:
    """Return the way to go: while far (1, not 0), up by `rise` first, then across, then down."""
    way = np.array(offset)
    way[2] = (1.0 - far) * offset[2] + far * rise
    way[:2] *= 1.0 - far * ramp(rise, 0.03, 0.08)
    return way


def _top_between(points: Array, start: Array, end: Array) -> float:
    """Return the height of the highest point above the way from start to end, and near it."""
    way = (end - start)[:2]
    from_start = (points - start)[:, :2]
    share = np.clip(from_start @ way / max(float(way @ way), 1e-9), 0.0, 1.0)
    off = np.linalg.norm(from_start - share[:, None] * way, axis=1)
    return float(points[off < _CORRIDOR_M, 2].max(initial=-np.inf))


def _level(vector: Array) -> Array:
    """Return the unit vector that points the same way on the horizontal."""
    level = vector * [1.0, 1.0, 0.0]
    return np.asarray(level / np.linalg.norm(level))
