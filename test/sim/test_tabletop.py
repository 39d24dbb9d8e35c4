from __future__ import annotations

import numpy as np
import pytest

from lightvla_ros.core.errors import ConfigError, SpecError
from lightvla_ros.sim.tabletop import Tabletop
from lightvla_ros.sim.world import WorldState

STILL = np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0])
RED_TO_BASKET = "pick up the red cube and place it in the basket"
CAN_TO_PLATE = "pick up the yellow can and place it on the plate"


@pytest.fixture(scope="module")
def blind() -> Tabletop:
    return Tabletop(render=False)


@pytest.fixture(scope="module")
def start() -> WorldState:
    world = Tabletop(image_size=128)
    state = world.reset(seed=4)
    world.close()
    return state


def _push(**axes: float) -> np.ndarray:
    action = STILL.copy()
    for axis, value in axes.items():
        action["xyz".index(axis)] = value
    return action


def _act(world: Tabletop, action: np.ndarray) -> WorldState:
    world.step(action)
    return world.observe()


def _share(image: np.ndarray, red: bool, green: bool, blue: bool) -> float:
    strong, weak = image > 150, image < 90
    wanted = [strong[..., i] if on else weak[..., i] for i, on in enumerate((red, green, blue))]
    return float(np.logical_and.reduce(wanted).mean())


def test_the_same_seed_and_actions_give_the_same_episode(blind: Tabletop) -> None:
    runs = []
    for _ in range(2):
        blind.reset(instruction=RED_TO_BASKET, seed=3)
        runs.append([_act(blind, _push(x=0.3, z=-0.2)).proprio for _ in range(10)])
    np.testing.assert_array_equal(runs[0], runs[1])


def test_another_seed_moves_the_objects(blind: Tabletop) -> None:
    blind.reset(instruction=RED_TO_BASKET, seed=1)
    first = blind.object_position()
    blind.reset(seed=2)
    assert np.linalg.norm(blind.object_position() - first) > 0.005


def test_there_are_eight_instructions_and_each_can_be_posed(blind: Tabletop) -> None:
    assert len(set(blind.instructions())) == 8
    for instruction in blind.instructions():
        blind.reset(instruction=instruction)
        assert blind.instruction == instruction


def test_a_new_goal_moves_nothing_and_ignores_letter_case(blind: Tabletop) -> None:
    before = blind.reset(instruction=RED_TO_BASKET, seed=0).proprio
    blind.set_goal("  Pick up the YELLOW can and  place it on the plate")
    assert blind.instruction == CAN_TO_PLATE
    np.testing.assert_array_equal(blind.observe().proprio, before)


def test_an_unknown_goal_is_refused_with_the_known_ones(blind: Tabletop) -> None:
    blind.reset(instruction=RED_TO_BASKET)
    with pytest.raises(ConfigError, match="yellow can and place it on the plate"):
        blind.set_goal("make tea")
    assert blind.instruction == RED_TO_BASKET


@pytest.mark.parametrize(
    "action",
    [np.zeros(6), np.zeros((8, 7)), np.array([np.nan, 0, 0, 0, 0, 0, 0]), np.full(7, np.inf), "left"],
)
def test_a_bad_action_is_refused_and_nothing_moves(blind: Tabletop, action: object) -> None:
    before = blind.reset(seed=0)
    with pytest.raises(SpecError, match="world action"):
        blind.step(action)  # type: ignore[arg-type]
    np.testing.assert_array_equal(blind.observe().joint_positions, before.joint_positions)


def test_proprio_is_position_then_rotation_then_fingers(blind: Tabletop) -> None:
    state = blind.reset(seed=0)
    assert state.proprio.shape == (8,)
    np.testing.assert_array_equal(state.proprio[:3], state.eef_position)
    np.testing.assert_allclose(state.proprio[3:6], [np.pi, 0.0, 0.0], atol=0.02)
    np.testing.assert_allclose(state.proprio[6:], [0.04, -0.04], atol=0.002)


def test_a_unit_of_translation_is_five_centimetres(blind: Tabletop) -> None:
    before = blind.reset(seed=0).eef_position
    for _ in range(4):
        blind.step(_push(x=0.5))
    for _ in range(6):
        after = _act(blind, STILL)
    np.testing.assert_allclose(after.eef_position - before, [0.1, 0.0, 0.0], atol=0.003)


def test_a_unit_of_rotation_is_half_a_radian(blind: Tabletop) -> None:
    blind.reset(seed=0)
    for _ in range(4):
        blind.step(np.array([0, 0, 0, 0, 0, 0.2, -1.0]))
    for _ in range(6):
        blind.step(STILL)
    _, rotation = blind.eef_pose()
    assert np.arctan2(rotation[1, 0], rotation[0, 0]) == pytest.approx(0.4, abs=0.02)


def test_the_gripper_closes_at_plus_one_and_opens_at_minus_one(blind: Tabletop) -> None:
    blind.reset(seed=0)
    for _ in range(15):
        closed = _act(blind, np.array([0, 0, 0, 0, 0, 0, 1.0]))
    for _ in range(15):
        opened = _act(blind, STILL)
    assert closed.gripper_positions[0] < 0.005
    assert opened.gripper_positions[0] > 0.035


@pytest.mark.parametrize("axes", [{"x": 1.0, "y": 1.0}, {"z": -1.0}, {"x": -1.0, "z": 1.0}])
def test_a_target_out_of_reach_leaves_the_arm_calm(blind: Tabletop, axes: dict[str, float]) -> None:
    blind.reset(seed=0)
    for _ in range(60):
        before = _act(blind, _push(**axes))
    after = _act(blind, _push(**axes))
    assert np.abs(after.joint_positions - before.joint_positions).max() < 0.02
    assert np.all(np.abs(after.eef_position) < 0.6)
    assert after.eef_position[2] > 0.0


def test_the_arm_answers_at_once_after_pushing_against_the_table(blind: Tabletop) -> None:
    blind.reset(seed=0)
    for _ in range(60):
        before = _act(blind, _push(z=-1.0))
    for _ in range(2):
        after = _act(blind, _push(z=1.0))
    assert after.eef_position[2] - before.eef_position[2] > 0.04


def test_cameras_show_different_pictures_of_the_size_asked_for(start: WorldState) -> None:
    third_person, wrist = start.images["third_person"], start.images["wrist"]
    assert third_person.shape == wrist.shape == (128, 128, 3)
    assert third_person.dtype == np.uint8
    assert np.abs(third_person.astype(int) - wrist.astype(int)).mean() > 10


@pytest.mark.parametrize(
    "colour", [(True, False, False), (False, True, False), (False, False, True), (True, True, False)]
)
def test_the_third_person_camera_sees_every_object(
    start: WorldState, colour: tuple[bool, bool, bool]
) -> None:
    assert 0.0005 < _share(start.images["third_person"], *colour) < 0.02


def test_without_rendering_there_are_no_images(blind: Tabletop) -> None:
    assert blind.observe().images == {}
