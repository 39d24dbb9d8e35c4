"""Have the scripted expert demonstrate, disturbed on purpose or with a policy driving (DAgger).

Either way the states are not only those of a faultless run, so that recovery is demonstrated too.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lightvla_ros.core.errors import ConfigError
from lightvla_ros.core.preprocess import resize
from lightvla_ros.learn.dagger import Dagger, MixedDriver
from lightvla_ros.learn.demonstrations import DemonstrationMeta, Episode, write_episode, write_meta
from lightvla_ros.sim.episode_pool import run_episodes
from lightvla_ros.sim.world import ACTION_NAMES, CAMERAS, CONTROL_PERIOD_S, PROPRIO_DIM, World, WorldState
from lightvla_ros.sim.worlds import Expert, WorldConfig

# The executed action [7] at a state, given what the expert would do; world units.
Driver = Callable[[WorldState, NDArray[np.float64]], NDArray[np.float64]]

RECIPE_FILE = "collection.json"
# A scripted expert that takes longer is stuck.
_TABLETOP_MAX_STEPS = 160
# Kept after success, so that chunks that begin near the end are whole and show the retreat.
_STEPS_AFTER_SUCCESS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Collection:
    """What to collect.

    Attributes:
        directory: where to.
        episodes: how many to attempt.
        seed: of the first episode; see `WorldConfig.seed`.
        image_size: pixels of the stored images.
        workers: processes.
        world: where.
        vary_wording: ask on the tabletop in other words than the standard sentence too.
        dagger: lets a policy drive and keeps all episodes; None lets the disturbed expert drive and drops
            the episodes it fails.
    """

    directory: Path
    episodes: int
    seed: int
    image_size: int
    workers: int
    world: WorldConfig = field(default_factory=WorldConfig)
    vary_wording: bool = False
    dagger: Dagger | None = None

    def __post_init__(self) -> None:
        """Refuse what the world does not have."""
        if self.vary_wording and self.world.is_libero:
            raise ConfigError("wording", got="varied", expected="standard: LIBERO has one sentence a task")

    def recipe(self) -> dict[str, object]:
        """Return what the episodes were made from, for the record beside them."""
        return {
            "world": self.world.name,
            "seed": self.seed,
            "episodes": self.episodes,
            "randomize": self.world.randomize,
            "vary_wording": self.vary_wording,
            "policy": None if self.dagger is None else self.dagger.name,
            "beta": 1.0 if self.dagger is None else self.dagger.beta,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """How one attempted episode went.

    Attributes:
        number: which of the collection's episodes it is.
        success: whether the world was satisfied at its end.
        kept: whether it was written.
        steps: control steps taken.
    """

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
    world: World,
    expert: Expert,
    drive: Driver,
    *,
    instruction: str,
    seed: int,
    image_size: int,
    max_steps: int,
) -> tuple[Episode, bool]:
    """Run one episode; return what the expert would have done at each state, and whether it succeeded.

    Args:
        world: where.
        expert: knows what to do there.
        drive: chooses what is executed, which need not be what the expert would do.
        instruction: of the world, any wording.
        seed: of the world's reset.
        image_size: pixels of the stored images.
        max_steps: control steps after which it is given up.

    Returns:
        The episode, its instruction not yet numbered, and whether the world was satisfied at its end.
    """
    state = world.reset(instruction=instruction, seed=seed)
    expert.reset(world)
    images, proprio, actions = [], [], []
    succeeded_at: int | None = None
    for step in range(max_steps):
        action = expert.act(world)
        images.append(_small_images(state, image_size))
        proprio.append(state.proprio.astype(np.float32))
        actions.append(model_action(action))
        world.step(drive(state, action))
        state = world.observe()
        if succeeded_at is None and world.is_success():
            succeeded_at = step
        if succeeded_at is not None and step >= succeeded_at + _STEPS_AFTER_SUCCESS:
            break
    episode = Episode(
        images=np.stack(images), proprio=np.stack(proprio), actions=np.stack(actions), instruction_index=0
    )
    return episode, world.is_success()


def collect(collection: Collection) -> Iterator[Attempt]:
    """Collect in parallel, yielding each attempt as it ends.

    Raises:
        ConfigError: the directory already holds demonstrations, or rendering does not work.
    """
    meta = demonstration_meta(collection.world, collection.image_size)
    write_meta(collection.directory, meta)
    (collection.directory / RECIPE_FILE).write_text(json.dumps(collection.recipe(), indent=2) + "\n")
    make = partial(_Demonstrator, collection, meta)
    yield from run_episodes(make, range(collection.episodes), workers=collection.workers)


def demonstration_meta(world: WorldConfig, image_size: int) -> DemonstrationMeta:
    """Return what all demonstrations in a world share."""
    return DemonstrationMeta(
        world=world.name,
        cameras=CAMERAS,
        image_size=image_size,
        action_names=ACTION_NAMES,
        proprio_dim=PROPRIO_DIM,
        step_period_s=CONTROL_PERIOD_S,
        instructions=world.sentences(),
    )


def _small_images(state: WorldState, image_size: int) -> NDArray[np.uint8]:
    return np.stack([resize(state.images[camera], image_size, jpeg=False) for camera in CAMERAS])


class _Demonstrator:
    """`EpisodeRunner` of attempts: a world, its expert and, for DAgger, a policy."""

    def __init__(self, collection: Collection, meta: DemonstrationMeta) -> None:
        self._collection = collection
        self._meta = meta
        self._world = collection.world.make()
        self._expert = collection.world.make_expert()
        self._policy = None if collection.dagger is None else collection.dagger.load()

    def run(self, number: int) -> Attempt:
        collection, world = self._collection, self._collection.world
        seed = collection.seed + number
        instruction = world.instructions()[number % len(world.instructions())]
        told = world.sentence(instruction, seed=seed if collection.vary_wording else None)
        # What is asked of LIBERO is a task's key, which is no wording of it.
        episode, success = demonstrate(
            self._world,
            self._expert,
            self._driver(told, np.random.default_rng([seed, 1])),
            instruction=instruction if world.is_libero else told,
            seed=world.seed(number, collection.seed),
            image_size=collection.image_size,
            max_steps=world.max_steps if world.is_libero else _TABLETOP_MAX_STEPS,
        )
        # What the expert fails is no demonstration; where a policy fails, its labels are worth most.
        kept = success or self._policy is not None
        if kept:
            numbered = replace(episode, instruction_index=self._meta.instructions.index(told))
            write_episode(collection.directory, number, numbered)
        return Attempt(number=number, success=success, kept=kept, steps=len(episode.actions))

    def close(self) -> None:
        self._world.close()
        if self._policy is not None:
            self._policy.close()

    def _driver(self, told: str, rng: np.random.Generator) -> Driver:
        dagger = self._collection.dagger
        if dagger is not None and self._policy is not None:
            return MixedDriver(self._policy, dagger, instruction=told, rng=rng)
        disturb = Disturbance(rng)
        return lambda _, action: disturb(action)
