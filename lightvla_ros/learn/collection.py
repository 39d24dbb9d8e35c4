"""Have the scripted expert demonstrate, disturbed on purpose or with a policy driving (DAgger).

Either way the states are not only those of a faultless run, so that recovery is demonstrated too.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from lightvla_ros.core.policy import Policy
from lightvla_ros.core.preprocess import resize
from lightvla_ros.learn.dagger import Dagger, MixedDriver
from lightvla_ros.learn.demonstrations import DemonstrationMeta, Episode, write_episode, write_meta
from lightvla_ros.sim.episode_pool import run_episodes
from lightvla_ros.sim.expert import TabletopExpert
from lightvla_ros.sim.instructions import GOALS, WORDINGS, wording
from lightvla_ros.sim.tabletop import CONTROL_PERIOD_S, Tabletop
from lightvla_ros.sim.tabletop_scene import CAMERAS
from lightvla_ros.sim.world import ACTION_NAMES, WorldState

# The executed action [7] at a state, given what the expert would do; world units.
Driver = Callable[[WorldState, NDArray[np.float64]], NDArray[np.float64]]

RECIPE_FILE = "collection.json"
RENDER_SIZE = 256
PROPRIO_DIM = 8
_MAX_STEPS = 160
# Kept after success, so that chunks that begin near the end are whole and show the retreat.
_STEPS_AFTER_SUCCESS = 10
_INSTRUCTIONS = tuple(WORDINGS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Collection:
    """What to collect.

    Attributes:
        directory: where to.
        episodes: how many to attempt.
        seed: of the first episode; episode i has seed + i.
        image_size: pixels of the stored images.
        workers: processes.
        randomize: how much the scene changes from episode to episode, 0 to 1; see `Tabletop`.
        vary_wording: ask in other words than the standard sentence too.
        dagger: lets a policy drive and keeps all episodes; None lets the disturbed expert drive and drops
            the episodes it fails.
    """

    directory: Path
    episodes: int
    seed: int
    image_size: int
    workers: int
    randomize: float = 0.0
    vary_wording: bool = False
    dagger: Dagger | None = None

    def recipe(self) -> dict[str, object]:
        """Return what the episodes were made from, for the record beside them."""
        return {
            "seed": self.seed,
            "episodes": self.episodes,
            "randomize": self.randomize,
            "vary_wording": self.vary_wording,
            "policy": None if self.dagger is None else self.dagger.name,
            "beta": 1.0 if self.dagger is None else self.dagger.beta,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """How one attempted episode went."""

    number: int
    success: bool
    kept: bool
    steps: int


class Disturbance:
    """Random pushes on the executed action: trembling, bursts in one direction, a slip of the gripper.

    Args:
        rng: where the randomness comes from.
    """

    _BURST_CHANCE = 0.04
    _BURST_STEPS = (3, 9)
    _BURST_SPEED = (0.1, 0.5)
    _TREMBLE_CHANCE = 0.3
    _TREMBLE = 0.15
    _TURN = 0.03
    _SLIP_CHANCE = 0.003
    _SLIP_STEPS = 4

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._push = np.zeros(6)
        self._push_steps = 0
        self._slip_steps = 0

    def __call__(self, action: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the disturbed action [7], world units."""
        disturbed = action.copy()
        disturbed[:6] += self._next_push()
        if self._rng.random() < self._TREMBLE_CHANCE:
            disturbed[:3] += self._rng.normal(0.0, self._TREMBLE, 3)
        if self._slip_steps == 0 and self._rng.random() < self._SLIP_CHANCE:
            self._slip_steps = self._SLIP_STEPS
        if self._slip_steps > 0:
            self._slip_steps -= 1
            disturbed[6] = -disturbed[6]
        return np.clip(disturbed, -1.0, 1.0)

    def _next_push(self) -> NDArray[np.float64]:
        if self._push_steps == 0:
            if self._rng.random() >= self._BURST_CHANCE:
                return np.zeros(6)
            direction = self._rng.normal(size=3)
            speed = self._rng.uniform(*self._BURST_SPEED)
            self._push[:3] = speed * direction / np.linalg.norm(direction)
            self._push[3:] = self._rng.normal(0.0, self._TURN, 3)
            self._push_steps = int(self._rng.integers(*self._BURST_STEPS))
        self._push_steps -= 1
        return self._push


def model_action(action: NDArray[np.float64]) -> NDArray[np.float32]:
    """Turn a world action [7] (gripper -1 open / +1 close) into a training label (1 open / 0 closed)."""
    label = action.astype(np.float32)
    label[-1] = (1.0 - action[-1]) / 2.0
    return label


def demonstrate(
    world: Tabletop, drive: Driver, *, instruction: str, seed: int, image_size: int
) -> tuple[Episode, bool]:
    """Run one episode; return what the expert would have done at each state, and whether it succeeded.

    Args:
        world: where.
        drive: chooses what is executed, which need not be what the expert would do.
        instruction: any wording of the goal.
        seed: of the world's reset.
        image_size: pixels of the stored images.
    """
    expert = TabletopExpert()
    state = world.reset(instruction=instruction, seed=seed)
    expert.reset(world)
    images, proprio, actions = [], [], []
    succeeded_at: int | None = None
    for step in range(_MAX_STEPS):
        action = expert.act(world)
        images.append(_small_images(state, image_size))
        proprio.append(state.proprio.astype(np.float32))
        actions.append(model_action(action))
        state = world.step(drive(state, action))
        if succeeded_at is None and world.is_success():
            succeeded_at = step
        if succeeded_at is not None and step >= succeeded_at + _STEPS_AFTER_SUCCESS:
            break
    episode = Episode(
        images=np.stack(images),
        proprio=np.stack(proprio),
        actions=np.stack(actions),
        instruction_index=_INSTRUCTIONS.index(instruction),
    )
    return episode, world.is_success()


def collect(collection: Collection) -> Iterator[Attempt]:
    """Collect in parallel, yielding each attempt as it ends.

    Raises:
        ConfigError: the directory already holds demonstrations, or rendering does not work.
    """
    write_meta(collection.directory, tabletop_meta(collection.image_size))
    (collection.directory / RECIPE_FILE).write_text(json.dumps(collection.recipe(), indent=2) + "\n")
    yield from run_episodes(
        _Worker.attempt,
        collection.episodes,
        workers=collection.workers,
        set_up=_Worker.start,
        arguments=(collection,),
    )


def tabletop_meta(image_size: int) -> DemonstrationMeta:
    """Return what all tabletop demonstrations of an image size share."""
    return DemonstrationMeta(
        world="tabletop",
        cameras=CAMERAS,
        image_size=image_size,
        action_names=ACTION_NAMES,
        proprio_dim=PROPRIO_DIM,
        step_period_s=CONTROL_PERIOD_S,
        instructions=_INSTRUCTIONS,
    )


def _small_images(state: WorldState, image_size: int) -> NDArray[np.uint8]:
    return np.stack([resize(state.images[camera], image_size, jpeg=False) for camera in CAMERAS])


class _Worker:
    """What a process keeps from episode to episode."""

    collection: ClassVar[Collection]

    @classmethod
    def start(cls, collection: Collection) -> None:
        cls.collection = collection

    @classmethod
    def attempt(cls, number: int) -> Attempt:
        return _attempt(cls.collection, *cls._parts(), number)

    @classmethod
    @functools.cache
    def _parts(cls) -> tuple[Tabletop, Policy | None]:
        # Not in `start`, which must not fail.
        dagger = cls.collection.dagger
        world = Tabletop(image_size=RENDER_SIZE, randomize=cls.collection.randomize)
        return world, None if dagger is None else dagger.load()


def _attempt(collection: Collection, world: Tabletop, policy: Policy | None, number: int) -> Attempt:
    seed = collection.seed + number
    goal = tuple(GOALS.values())[number % len(GOALS)]
    instruction = wording(goal, seed) if collection.vary_wording else goal.instruction
    rng = np.random.default_rng([seed, 1])
    episode, success = demonstrate(
        world,
        _driver(collection.dagger, policy, instruction, rng),
        instruction=instruction,
        seed=seed,
        image_size=collection.image_size,
    )
    # What the expert fails is no demonstration; where the policy fails, the expert's labels are worth most.
    kept = success or policy is not None
    if kept:
        write_episode(collection.directory, number, episode)
    return Attempt(number=number, success=success, kept=kept, steps=len(episode.actions))


def _driver(
    dagger: Dagger | None, policy: Policy | None, instruction: str, rng: np.random.Generator
) -> Driver:
    if dagger is not None and policy is not None:
        return MixedDriver(policy, dagger, instruction=instruction, rng=rng)
    disturb = Disturbance(rng)
    return lambda _, action: disturb(action)
