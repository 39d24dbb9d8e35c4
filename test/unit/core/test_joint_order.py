"""Every joint gets its own action, whatever order the controller has them in."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightvla_ros.core.errors import ConfigError
from lightvla_ros.core.joint_order import joint_order

names = st.lists(st.text("abc_123", min_size=1, max_size=6), min_size=1, max_size=9, unique=True)


@given(names.flatmap(lambda actions: st.tuples(st.just(actions), st.permutations(actions))))
def test_a_joint_named_like_an_action_gets_that_action(case: tuple[list[str], list[str]]) -> None:
    actions, joints = case
    action = np.arange(len(actions)) * 1.5
    wanted = dict(zip(actions, action, strict=True))
    commanded = action[joint_order(joints, actions)]
    assert dict(zip(joints, commanded, strict=True)) == wanted


@given(names.flatmap(lambda actions: st.tuples(st.just(actions), st.permutations(actions))))
def test_there_and_back_again_is_the_same_order(case: tuple[list[str], list[str]]) -> None:
    actions, joints = case
    there, back = joint_order(joints, actions), joint_order(actions, joints)
    np.testing.assert_array_equal(there[back], np.arange(len(actions)))
    np.testing.assert_array_equal(back[there], np.arange(len(actions)))


@given(names)
def test_joints_of_other_names_keep_the_order_of_the_actions(actions: list[str]) -> None:
    joints = [f"other_{index}" for index in range(len(actions))]
    np.testing.assert_array_equal(joint_order(joints, actions), np.arange(len(actions)))


@pytest.mark.parametrize(
    ("joints", "message"),
    [
        (["a", "b"], r"command.joint_names; got 2 joints; expected 3: the actions are \['a', 'b', 'c'\]"),
        ([], "got 0 joints"),
        (["b", "a", "b"], r"got \['b'\] more than once; expected each joint once"),
        (["left", "right", "left"], r"got \['left'\] more than once"),
        (["a", "b", "gripper"], r"got \['gripper'\], which are no actions.*expected \['a', 'b', 'c'\]"),
    ],
)
def test_joints_that_do_not_match_are_refused_with_what_to_do(joints: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as refusal:
        joint_order(joints, ["a", "b", "c"])
    assert (
        refusal.value.fix == "name one joint per action dimension but the gripper, in the controller's order"
    )
