"""A LIBERO suite as a `World`: a Panda arm in robosuite, judged by LIBERO."""

from __future__ import annotations

import atexit
import os
import weakref
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightvla_ros.core.errors import ConfigError
from lightvla_ros.sim.libero.rendering import CameraRenderer, ExactRenderer, FastRenderer
from lightvla_ros.sim.libero.suites import LiberoTask, load_suite, quiet_libero
from lightvla_ros.sim.world import CONTROL_PERIOD_S, WorldState, checked_action

RENDERERS: dict[str, type[CameraRenderer] | None] = {
    "exact": ExactRenderer,
    "fast": FastRenderer,
    "none": None,
}

# our name of a camera -> LIBERO's
CAMERAS = {"third_person": "agentview", "wrist": "robot0_eye_in_hand"}
ARM_JOINTS = tuple(f"panda_joint{number}" for number in range(1, 8))
FINGER_JOINTS = ("finger_left", "finger_right")
WAIT_STEPS = 10
_STILL = np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0])


class LiberoWorld:
    """A `World` whose instructions are the tasks of a suite.

    Its physics is LIBERO's own (robosuite's OSC_POSE controller, 20 Hz, actions as `World.step` says).
    Fixtures stand where LIBERO puts them in the first episode after `env.seed(0)`, so that an episode is the
    same whatever came before it.

    Args:
        suite: one of `suites.SUITES`.
        render: "exact" draws as LIBERO does, 90 to 230 ms for both cameras on two cores; "fast" draws
            simplified meshes without shadows in a fifth of that or less; "none" gives no images.
        image_size: pixels, height and width of both camera images.

    Raises:
        ConfigError: the suite or the way of rendering is unknown, or LIBERO is not installed.
    """

    control_period_s = CONTROL_PERIOD_S
    joint_names = ARM_JOINTS + FINGER_JOINTS

    def __init__(self, suite: str, *, render: str = "exact", image_size: int = 256) -> None:
        if render not in RENDERERS:
            raise ConfigError("render", got=repr(render), expected=f"one of {', '.join(RENDERERS)}")
        self._tasks = load_suite(suite)
        self._by_instruction = _index(self._tasks)
        self._render = render
        self._image_size = image_size
        self._task = self._tasks[0]
        # The task whose scene is loaded: LIBERO makes a simulation for each.
        self._loaded: LiberoTask | None = None
        self._env: Any = None
        self._renderer: CameraRenderer | None = None
        self._measured: dict[str, Any] = {}
        # At exit the renderer must close before the GL library does; what is registered last comes first.
        atexit.register(_close, weakref.ref(self))

    @property
    def instruction(self) -> str:
        """The instruction of the current episode."""
        return self._task.instruction

    def instructions(self) -> tuple[str, ...]:
        """The suite's tasks in LIBERO's order, by their instruction or, where that is not unique, name."""
        return tuple(task.key for task in self._tasks)

    def set_goal(self, instruction: str) -> None:
        """Accept the present goal, in any letter case and spacing; LIBERO judges no other without a reset.

        Raises:
            ConfigError: it is another instruction.
        """
        if self._find(instruction) is not self._task:
            raise ConfigError(
                "LIBERO instruction",
                got=repr(instruction),
                expected=f"{self.instruction!r}, which the scene was made for",
                fix="reset the world with this instruction",
            )

    def reset(self, *, instruction: str | None = None, seed: int = 0) -> WorldState:
        """Start an episode from an initial state of LIBERO's, after `WAIT_STEPS` steps of standing still.

        Args:
            instruction: the task, by its instruction or LIBERO's name; None keeps the present one.
            seed: number of the initial state, counted from the first again after the last (50).

        Raises:
            ConfigError: the instruction is unknown.
        """
        if instruction is not None:
            self._task = self._find(instruction)
        if self._loaded is not self._task:
            self._load()
        states = self._task.initial_states()
        # Fixtures are placed by NumPy's global generator; so is nothing else.
        self._env.seed(0)
        with quiet_libero():
            self._env.reset()
            self._measured = self._env.set_init_state(states[seed % len(states)])
        self._make_renderer()
        for _ in range(WAIT_STEPS):
            self._measured, *_ = self._env.step(_STILL)
        return self.observe()

    def step(self, action: NDArray[np.float64]) -> None:
        """Act for one control period; see `World.step`.

        Raises:
            SpecError: the action is not seven finite numbers; nothing has moved.
        """
        self._measured, *_ = self._env.step(checked_action(action))

    def observe(self) -> WorldState:
        """Measure and render the present state."""
        measured = self._measured
        cameras = CAMERAS if self._renderer else {}
        return WorldState(
            images={ours: self._picture(theirs) for ours, theirs in cameras.items()},
            eef_position=np.array(measured["robot0_eef_pos"]),
            eef_quaternion=np.array(measured["robot0_eef_quat"]),
            joint_positions=np.array(measured["robot0_joint_pos"]),
            gripper_positions=np.array(measured["robot0_gripper_qpos"]),
        )

    def is_success(self) -> bool:
        """Whether LIBERO says that the goal is reached now."""
        return bool(self._env.check_success())

    def close(self) -> None:
        """Free simulation and renderer; the world cannot be used afterwards."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None
        if self._env is not None:
            self._env.close()
            self._env = self._loaded = None

    @property
    def simulation(self) -> Any:
        """Privileged: LIBERO's environment of the current episode."""
        return self._env

    def _find(self, instruction: str) -> LiberoTask:
        task = self._by_instruction.get(" ".join(instruction.lower().split()))
        if task is None:
            raise ConfigError(
                "LIBERO instruction",
                got=repr(instruction),
                expected="one of: " + "; ".join(self.instructions()),
                fix="use one of these sentences, or a task's name",
            )
        return task

    def _load(self) -> None:
        self.close()
        with quiet_libero():
            from libero.libero.envs.env_wrapper import ControlEnv

            self._env = ControlEnv(
                bddl_file_name=os.fspath(self._task.bddl_file),
                use_camera_obs=False,
                has_offscreen_renderer=False,
                ignore_done=True,
            )
        self._loaded = self._task

    def _make_renderer(self) -> None:
        # A reset makes a new model, which the renderer before it does not know.
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None
        kind = RENDERERS[self._render]
        if kind is not None:
            self._renderer = kind(self._env.env, self._image_size)

    def _picture(self, camera: str) -> NDArray[np.uint8]:
        assert self._renderer is not None
        # LIBERO's images are upside down, and the models were trained on them turned by half a turn: what
        # they see is mirrored (spec §8).
        return np.ascontiguousarray(self._renderer.render(camera)[:, ::-1])


def _close(world: weakref.ref[LiberoWorld]) -> None:
    still_there = world()
    if still_there is not None:
        still_there.close()


def _index(tasks: tuple[LiberoTask, ...]) -> dict[str, LiberoTask]:
    """Find tasks by instruction and by name; where instructions repeat, the first has it."""
    index = {task.name.lower(): task for task in reversed(tasks)}
    return index | {task.instruction: task for task in reversed(tasks)}
