"""The tabletop world: a generic arm, four objects, a basket and a plate, in plain MuJoCo."""

from __future__ import annotations

import atexit
import weakref

import numpy as np
from numpy.typing import NDArray

from lightvla_ros.core.errors import ConfigError
from lightvla_ros.sim.arm_controller import DOWN, ArmController
from lightvla_ros.sim.gl import create_renderer, mujoco
from lightvla_ros.sim.instructions import GOALS, WORDINGS
from lightvla_ros.sim.randomization import SceneRandomizer, moved_start
from lightvla_ros.sim.tabletop_scene import (
    ARM_JOINTS,
    FINGER_JOINTS,
    FINGER_OPEN_M,
    OBJECTS,
    PHYSICS_STEP_S,
    TARGETS,
    build_model,
)
from lightvla_ros.sim.world import (
    CAMERAS,
    CONTROL_PERIOD_S,
    ROTATION_SCALE_RAD,
    TRANSLATION_SCALE_M,
    WorldState,
    checked_action,
)

_CONTROLLER_UPDATES = 5
_PHYSICS_STEPS_PER_UPDATE = round(CONTROL_PERIOD_S / PHYSICS_STEP_S / _CONTROLLER_UPDATES)
_SETTLE_STEPS = 80
_SPAWN_LOW = np.array([-0.19, -0.14])
_SPAWN_HIGH = np.array([-0.02, 0.14])
# Room for the fingers, which open along y, beside every object.
_CLEARANCE = np.array([0.075, 0.10])
_TARGET_JITTER_M = 0.01
# Behind the objects as the third-person camera sees them, so that the first image hides none.
_START_POSITION = np.array([-0.24, 0.0, 0.17])
_START_JITTER_M = 0.02
_OBJECT_YAW_RAD = 0.06
_RELEASED_OPENING_M = 0.03


class Tabletop:
    """A `World` of eight instructions: each of four objects, in the basket or on the plate.

    Args:
        image_size: pixels, height and width of both camera images.
        render: whether observations carry images; without, no graphics library is needed.
        randomize: how much colours, light, cameras and start pose change with the seed, 0 (the standard
            scene) to 1.

    Attributes:
        goal: object and target that the present instruction asks for.

    Raises:
        ConfigError: `render` is on and no graphics backend works; the message names the packages. Or
            `randomize` is out of range.
    """

    control_period_s = CONTROL_PERIOD_S
    joint_names = ARM_JOINTS + FINGER_JOINTS

    def __init__(self, image_size: int = 256, render: bool = True, randomize: float = 0.0) -> None:
        if not 0.0 <= randomize <= 1.0:
            raise ConfigError("randomize", got=randomize, expected="0 (the standard scene) to 1")
        self._model = build_model()
        self._data = mujoco.MjData(self._model)
        self._controller = ArmController(self._model)
        self._randomizer = SceneRandomizer(self._model)
        self._randomize = randomize
        self._renderer = create_renderer(self._model, image_size) if render else None
        if self._renderer is not None:
            # At exit it must close before the GL library does; what is registered last comes first.
            atexit.register(weakref.finalize(self, self._renderer.close))
        self.goal = next(iter(GOALS.values()))
        self.reset()

    @property
    def instruction(self) -> str:
        """The instruction of the current episode."""
        return self.goal.instruction

    def instructions(self) -> tuple[str, ...]:
        """Every instruction the world can pose, in its standard wording."""
        return tuple(GOALS)

    def set_goal(self, instruction: str) -> None:
        """Change the goal without moving anything, in any wording; letter case and spacing do not matter.

        Raises:
            ConfigError: the instruction is unknown; the message lists the known ones.
        """
        goal = WORDINGS.get(" ".join(instruction.lower().split()))
        if goal is None:
            raise ConfigError(
                "tabletop instruction",
                got=repr(instruction),
                expected="one of: " + "; ".join(GOALS),
                fix="use one of these sentences",
            )
        self.goal = goal

    def reset(self, *, instruction: str | None = None, seed: int = 0) -> WorldState:
        """Start an episode; the same instruction and seed give the same episode.

        Args:
            instruction: the new goal; None keeps the present one.
            seed: chooses where objects, targets and arm start, and how a randomised scene looks.

        Raises:
            ConfigError: the instruction is unknown.
        """
        if instruction is not None:
            self.set_goal(instruction)
        rng = np.random.default_rng(seed)
        mujoco.mj_resetData(self._model, self._data)
        self._place_targets(rng)
        self._place_objects(rng)
        start = _START_POSITION + rng.uniform(-_START_JITTER_M, _START_JITTER_M, 3), DOWN
        if self._randomize > 0.0:
            # A generator of its own: objects and targets are where the standard scene has them.
            look = np.random.default_rng([seed, 2])
            self._randomizer.apply(look, self._randomize)
            start = moved_start(*start, look, self._randomize)
        joints = self._controller.place(*start)
        self._data.qpos[: len(joints)] = joints
        self._data.qpos[len(joints) : len(joints) + 2] = FINGER_OPEN_M
        self._data.ctrl[:] = [*joints, FINGER_OPEN_M]
        mujoco.mj_step(self._model, self._data, _SETTLE_STEPS)
        mujoco.mj_forward(self._model, self._data)
        return self.observe()

    def step(self, action: NDArray[np.float64]) -> None:
        """Act for one control period; see `World.step`.

        Raises:
            SpecError: the action is not seven finite numbers; nothing has moved.
        """
        command = checked_action(action)
        scale = np.repeat([TRANSLATION_SCALE_M, ROTATION_SCALE_RAD], 3)
        self._controller.command(command[:6] * scale, self._data)
        if command[6] != 0.0:
            self._data.ctrl[-1] = FINGER_OPEN_M if command[6] < 0.0 else 0.0
        for update in range(_CONTROLLER_UPDATES):
            fraction = 1.0 / (_CONTROLLER_UPDATES - update)
            self._data.ctrl[: len(ARM_JOINTS)] = self._controller.joint_targets(fraction)
            mujoco.mj_step(self._model, self._data, _PHYSICS_STEPS_PER_UPDATE)
        mujoco.mj_forward(self._model, self._data)

    def observe(self) -> WorldState:
        """Measure and render the present state."""
        position, rotation = self._controller.pose(self._data)
        quaternion = np.zeros(4)
        mujoco.mju_mat2Quat(quaternion, rotation.ravel())
        fingers = self._data.qpos[len(ARM_JOINTS) : len(self.joint_names)]
        return WorldState(
            images={camera: self._render(camera) for camera in CAMERAS} if self._renderer else {},
            eef_position=position,
            eef_quaternion=np.roll(quaternion, -1),
            joint_positions=self._data.qpos[: len(ARM_JOINTS)].copy(),
            gripper_positions=fingers * [1.0, -1.0],
        )

    def is_success(self) -> bool:
        """Whether the object rests in the basket, or on the plate and let go of."""
        if not self.over_target() or self._underside() > self.goal.target.rest_height:
            return False
        return self.goal.target.name == "basket" or self.finger_opening() > _RELEASED_OPENING_M

    def close(self) -> None:
        """Free the renderer; the world cannot be used afterwards."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None

    def eef_pose(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Privileged: end-effector position [3], m, and rotation matrix [3, 3]."""
        return self._controller.pose(self._data)

    def object_position(self) -> NDArray[np.float64]:
        """Privileged: centre [3], m, of the object the goal is about."""
        return np.array(self._data.body(self.goal.item.body).xpos)

    def target_position(self) -> NDArray[np.float64]:
        """Privileged: centre [3], m, of the foot of the goal's basket or plate."""
        return np.array(self._data.body(self.goal.target.name).xpos)

    def finger_opening(self) -> float:
        """Distance of one finger from closed, m: 0 closed, 0.04 open."""
        return float(self._data.joint(FINGER_JOINTS[0]).qpos[0])

    def pinches_object(self) -> bool:
        """Privileged: whether both fingers touch the goal's object."""
        thing = self._model.body(self.goal.item.body).geomadr[0]
        pairs = self._data.contact.geom
        touched = pairs[(pairs == thing).any(axis=1)]
        return all((touched == self._model.geom(f"{joint}_pad").id).any() for joint in FINGER_JOINTS)

    def over_target(self) -> bool:
        """Privileged: whether the object's centre is above (or in, or on) its target."""
        offset = self.object_position()[:2] - self.target_position()[:2]
        square = self.goal.target.name == "basket"
        distance = np.abs(offset).max() if square else np.linalg.norm(offset)
        return bool(distance < self.goal.target.radius)

    def _underside(self) -> float:
        return float(self.object_position()[2]) - self.goal.item.half_height

    def _place_targets(self, rng: np.random.Generator) -> None:
        for target in TARGETS:
            mocap = self._model.body(target.name).mocapid[0]
            jitter = rng.uniform(-_TARGET_JITTER_M, _TARGET_JITTER_M, 2)
            self._data.mocap_pos[mocap] = [*(np.array(target.position) + jitter), 0.0]

    def _place_objects(self, rng: np.random.Generator) -> None:
        for item, spot in zip(OBJECTS, _free_spots(rng, len(OBJECTS)), strict=True):
            yaw = rng.uniform(-_OBJECT_YAW_RAD, _OBJECT_YAW_RAD)
            address = self._model.joint(self._model.body(item.body).jntadr[0]).qposadr[0]
            turn = [np.cos(yaw / 2.0), 0.0, 0.0, np.sin(yaw / 2.0)]
            self._data.qpos[address : address + 7] = [*spot, item.half_height + 0.0005, *turn]

    def _render(self, camera: str) -> NDArray[np.uint8]:
        assert self._renderer is not None
        self._renderer.update_scene(self._data, camera=camera)
        return np.asarray(self._renderer.render())


def _free_spots(rng: np.random.Generator, count: int) -> list[NDArray[np.float64]]:
    """Places [2], m, on the table with room for the gripper around each."""
    spots: list[NDArray[np.float64]] = []
    attempts = 0
    while len(spots) < count:
        attempts += 1
        if attempts % 50 == 0:
            # Early places can leave no room for the last: start over.
            spots = []
        spot = rng.uniform(_SPAWN_LOW, _SPAWN_HIGH)
        if all((np.abs(spot - other) > _CLEARANCE).any() for other in spots):
            spots.append(spot)
    return spots
