"""Randomised scenes look different, hold the same things in the same places, and colours keep their names."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from lightvla_ros.core.errors import ConfigError
from lightvla_ros.learn.pointing import colour_shares
from lightvla_ros.sim.expert import TabletopExpert
from lightvla_ros.sim.gl import mujoco
from lightvla_ros.sim.instructions import GOALS
from lightvla_ros.sim.tabletop import Tabletop
from lightvla_ros.sim.tabletop_scene import OBJECTS

SIZE = 112


@pytest.fixture(scope="module")
def standard() -> Tabletop:
    return Tabletop(image_size=SIZE)


@pytest.fixture(scope="module")
def randomized() -> Tabletop:
    return Tabletop(image_size=SIZE, randomize=1.0)


def _placed(world: Tabletop) -> np.ndarray:
    places = []
    for instruction in GOALS:
        world.set_goal(instruction)
        places += [world.object_position()[:2], world.target_position()[:2]]
    return np.stack(places)


def test_the_same_seed_gives_the_same_scene_whatever_came_before(randomized: Tabletop) -> None:
    first = randomized.reset(seed=3)
    other = randomized.reset(seed=4)
    again = randomized.reset(seed=3)
    for camera in first.images:
        np.testing.assert_array_equal(again.images[camera], first.images[camera])
        assert np.abs(other.images[camera].astype(int) - first.images[camera]).mean() > 3
    np.testing.assert_array_equal(again.proprio, first.proprio)


def test_a_randomised_scene_has_the_objects_where_the_standard_one_has_them(
    standard: Tabletop, randomized: Tabletop
) -> None:
    for seed in range(4):
        plain, changed = standard.reset(seed=seed), randomized.reset(seed=seed)
        np.testing.assert_allclose(_placed(randomized), _placed(standard), atol=2e-3)
        assert np.abs(changed.eef_position - plain.eef_position).max() > 0.002
        for camera in plain.images:
            assert np.abs(changed.images[camera].astype(int) - plain.images[camera]).mean() > 3


def test_the_standard_scene_does_not_change_its_look_with_the_seed(standard: Tabletop) -> None:
    """The wall and the far edge of the table, which nothing hides."""
    corners = [standard.reset(seed=seed).images["third_person"][:4, :8] for seed in range(3)]
    np.testing.assert_array_equal(corners[0], corners[1])
    np.testing.assert_array_equal(corners[0], corners[2])


@pytest.mark.parametrize("strength", [0.0, 1.0])
def test_colours_keep_the_name_instructions_call_them_by(strength: float) -> None:
    """What pointing takes for a colour is the object of that colour, seen by MuJoCo's own segmentation."""
    world = Tabletop(image_size=SIZE, randomize=strength)
    segmentation = mujoco.Renderer(world._model, SIZE, SIZE)
    segmentation.enable_segmentation_rendering()
    hits = shown = marked = 0.0
    for seed in range(12):
        images = world.reset(seed=seed).images
        for (camera, image), item in product(images.items(), OBJECTS):
            segmentation.update_scene(world._data, camera=camera)
            geoms = segmentation.render()[..., 0]
            true = geoms == world._model.body(item.body).geomadr[0]
            found = colour_shares(image, item.name.split()[0], SIZE).reshape(SIZE, SIZE) > 0
            hits, shown, marked = hits + (true & found).sum(), shown + true.sum(), marked + found.sum()
    segmentation.close()
    world.close()
    assert hits / shown > 0.9
    assert hits / marked > 0.9


@pytest.mark.parametrize("instruction", list(GOALS))
def test_the_expert_fulfils_every_instruction_in_a_randomised_scene(instruction: str) -> None:
    world, expert = Tabletop(render=False, randomize=1.0), TabletopExpert()
    world.reset(instruction=instruction, seed=200)
    for _ in range(110):
        world.step(expert.act(world))
        if world.is_success():
            break
    assert world.is_success()


@pytest.mark.parametrize("strength", [-0.1, 1.1, float("nan")])
def test_a_strength_out_of_range_is_refused(strength: float) -> None:
    with pytest.raises(ConfigError, match="randomize"):
        Tabletop(render=False, randomize=strength)
