"""Have the scripted expert demonstrate, disturbed on purpose so that recovery is demonstrated too."""

from __future__ import annotations

import functools
import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lightvla_ros.core.preprocess import resize
from lightvla_ros.learn.demonstrations import DemonstrationMeta, Episode, write_episode, write_meta
from lightvla_ros.sim.expert import TabletopExpert
from lightvla_ros.sim.tabletop import CONTROL_PERIOD_S, GOALS, Tabletop
from lightvla_ros.sim.tabletop_scene import CAMERAS
from lightvla_ros.sim.world import ACTION_NAMES, WorldState

RENDER_SIZE = 256
PROPRIO_DIM = 8
_MAX_STEPS = 160
# Kept after success, so that chunks that begin near the end are whole and show the retreat.
_STEPS_AFTER_SUCCESS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Collection:
    """What to collect.

    Attributes:
        directory: where to.
        episodes: how many to attempt; those that fail are dropped.
        seed: of the first episode; episode i has seed + i.
        image_size: pixels of the stored images.
        workers: processes.
    """

    directory: Path
    episodes: int
    seed: int
    image_size: int
    workers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """How one attempted episode went."""

    number: int
    success: bool
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


def demonstrate(world: Tabletop, *, instruction: str, seed: int, image_size: int) -> tuple[Episode, bool]:
    """Run one disturbed episode; return what the expert would have done at each state, and its success."""
    expert = TabletopExpert()
    state = world.reset(instruction=instruction, seed=seed)
    expert.reset(world)
    disturb = Disturbance(np.random.default_rng([seed, 1]))
    images, proprio, actions = [], [], []
    succeeded_at: int | None = None
    for step in range(_MAX_STEPS):
        action = expert.act(world)
        images.append(_small_images(state, image_size))
        proprio.append(state.proprio.astype(np.float32))
        actions.append(model_action(action))
        state = world.step(disturb(action))
        if succeeded_at is None and world.is_success():
            succeeded_at = step
        if succeeded_at is not None and step >= succeeded_at + _STEPS_AFTER_SUCCESS:
            break
    episode = Episode(
        images=np.stack(images),
        proprio=np.stack(proprio),
        actions=np.stack(actions),
        instruction_index=world.instructions().index(instruction),
    )
    return episode, world.is_success()


def collect(collection: Collection) -> Iterator[Attempt]:
    """Collect in parallel, yielding each attempt as it ends.

    Raises:
        ConfigError: the directory already holds demonstrations, or rendering does not work.
    """
    write_meta(collection.directory, tabletop_meta(collection.image_size))
    pool = ProcessPoolExecutor(
        collection.workers,
        mp_context=multiprocessing.get_context("spawn"),
    )
    with pool:
        attempts = [pool.submit(_attempt, collection, number) for number in range(collection.episodes)]
        try:
            for attempt in as_completed(attempts):
                yield attempt.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def tabletop_meta(image_size: int) -> DemonstrationMeta:
    """Return what all tabletop demonstrations of an image size share."""
    return DemonstrationMeta(
        world="tabletop",
        cameras=CAMERAS,
        image_size=image_size,
        action_names=ACTION_NAMES,
        proprio_dim=PROPRIO_DIM,
        step_period_s=CONTROL_PERIOD_S,
        instructions=tuple(GOALS),
    )


def _small_images(state: WorldState, image_size: int) -> NDArray[np.uint8]:
    return np.stack([resize(state.images[camera], image_size, jpeg=False) for camera in CAMERAS])


@functools.cache
def _worker_world() -> Tabletop:
    """Return the process's own world: one thread each, as the processes already fill the cores."""
    os.environ.setdefault("LP_NUM_THREADS", "1")
    return Tabletop(image_size=RENDER_SIZE)


def _attempt(collection: Collection, number: int) -> Attempt:
    world = _worker_world()
    instructions = world.instructions()
    episode, success = demonstrate(
        world,
        instruction=instructions[number % len(instructions)],
        seed=collection.seed + number,
        image_size=collection.image_size,
    )
    if success:
        write_episode(collection.directory, number, episode)
    return Attempt(number=number, success=success, steps=len(episode.actions))
