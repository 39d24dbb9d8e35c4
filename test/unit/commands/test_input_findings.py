"""What `lightvla doctor` says about cameras and robot state, from numbers to findings."""

from __future__ import annotations

from dataclasses import replace

import pytest
from graph_cases import (
    AGE_NS,
    COMPRESSED,
    EMPTY,
    HEALTHY,
    IMAGE,
    NOW_NS,
    PERIOD_NS,
    arrivals,
    bad,
    end,
    only,
    stamped,
    unpublished,
    with_wrist,
    without_policy,
)

from lightvla_ros.commands._input_findings import camera_findings, pair_findings, state_findings
from lightvla_ros.core.config import with_values
from lightvla_ros.core.graph_survey import GraphSurvey, Topic

WRIST = HEALTHY.cameras["wrist"]


def with_state(index: int, topic: Topic) -> GraphSurvey:
    states = list(HEALTHY.states)
    states[index] = topic
    return replace(HEALTHY, states=tuple(states))


def test_healthy_cameras_are_told_with_rate_size_encoding_delivery_and_age() -> None:
    found = list(camera_findings(HEALTHY))
    assert not bad(found)
    assert found[1].text == "/camera/wrist/image: 20.0 Hz, 640x480 rgb8, best effort from /driver, 5 ms old"
    assert found[2].text == "the cameras' stamps differ by 0 ms, 30 ms are allowed"


def test_a_camera_that_nobody_publishes_is_an_error_beside_a_policy_node_and_a_note_without() -> None:
    survey = replace(with_wrist(publishers=(), arrivals=()), image_topics={})
    found = only(camera_findings(survey))
    assert (found.level, found.text) == ("error", "/camera/wrist/image: nobody publishes")
    assert "ROS_DOMAIN_ID" in found.fix
    assert only(camera_findings(without_policy(survey))).level == "note"


def test_no_images_anywhere_are_one_note() -> None:
    found = only(camera_findings(EMPTY))
    assert (found.level, found.fix) == ("note", "start the cameras' drivers")
    assert "/camera/third_person/image, /camera/wrist/image" in found.text


def test_images_under_another_name_are_named_with_the_launch_argument() -> None:
    survey = with_wrist(publishers=(), arrivals=())
    survey = replace(survey, image_topics={**survey.image_topics, "/realsense/color": IMAGE})
    fix = only(camera_findings(survey)).fix
    assert "wrist_topic:=<topic>" in fix
    assert fix.endswith("images are on /realsense/color")


def test_images_that_come_compressed_only_are_found() -> None:
    survey = with_wrist(publishers=(), arrivals=())
    survey = replace(survey, image_topics={f"{WRIST.name}/compressed": COMPRESSED})
    assert only(camera_findings(survey)).fix == (
        "set camera.transport to compressed: /camera/wrist/image/compressed is published"
    )


def test_images_of_another_type_on_the_topic_are_an_error_with_the_parameter() -> None:
    survey = with_wrist(publishers=(end("/driver", COMPRESSED),), arrivals=())
    found = only(camera_findings(survey))
    assert found.level == "error"
    assert "/driver publishes sensor_msgs/msg/CompressedImage" in found.text
    assert "set camera.transport to compressed" in found.fix


def test_no_image_at_all_on_a_camera_topic_says_what_is_expected() -> None:
    survey = with_wrist(publishers=(end("/driver", "std_msgs/msg/String"),), arrivals=())
    assert only(camera_findings(survey)).fix == "publish sensor_msgs/msg/Image, or remap"


def test_two_publishers_of_a_camera_are_an_error() -> None:
    survey = with_wrist(publishers=(end("/driver", IMAGE), end("/replay", IMAGE)))
    found = only(camera_findings(survey))
    assert (found.level, found.fix) == ("error", "stop or remap all but one")
    assert "2 publishers, /driver, /replay" in found.text


def test_quality_of_service_that_does_not_fit_is_an_error() -> None:
    reason = "best effort publisher and reliable subscription"
    survey = with_wrist(publishers=(end("/driver", IMAGE, mismatch=reason),), arrivals=())
    found = only(camera_findings(survey))
    assert (found.level, found.fix) == ("error", "set camera.reliability to auto")
    assert found.text == f"/camera/wrist/image: /driver is not heard: {reason}"


def test_a_best_effort_camera_that_is_not_heard_may_need_the_dds_profile() -> None:
    found = only(camera_findings(with_wrist(arrivals=())))
    assert found.level == "error"
    assert "nothing came from /driver in 2 s" in found.text
    assert "FASTDDS_DEFAULT_PROFILES_FILE" in found.fix
    reliable = with_wrist(arrivals=(), publishers=(end("/driver", IMAGE, is_reliable=True),))
    assert only(camera_findings(reliable)).fix == "check that its driver runs"


def test_a_camera_that_stops_the_motion_by_its_gaps_is_an_error() -> None:
    slow = arrivals(3, period_ns=800_000_000)
    survey = with_wrist(arrivals=slow, ended_ns=1_700_000_000)
    found = next(finding for finding in camera_findings(survey) if finding.level == "error")
    assert "1.2 Hz, up to 800 ms without a message; the node stops after 500 ms" in found.text
    assert "FASTDDS_DEFAULT_PROFILES_FILE" in found.fix
    small = with_wrist(arrivals=slow, ended_ns=1_700_000_000, num_bytes=1000)
    assert "publish more often" in next(f for f in camera_findings(small) if f.level == "error").fix


def test_a_camera_that_fell_silent_is_an_error() -> None:
    found = only(camera_findings(with_wrist(ended_ns=5_000_000_000)))
    assert "up to 3.0 s without a message" in found.text


def test_an_image_that_the_node_refuses_is_told_in_its_words() -> None:
    problem = "image encoding; got 'yuv422'; expected one of rgb8. Fix: set the camera to rgb8"
    found = only(camera_findings(with_wrist(problem=problem)))
    assert (found.level, found.fix) == ("error", "set the camera to rgb8")
    assert found.text.endswith("got 'yuv422'; expected one of rgb8")


def test_zero_stamps_are_an_error() -> None:
    survey = replace(HEALTHY, cameras={**HEALTHY.cameras, "wrist": stamped(WRIST, [0] * 40)})
    found = only(camera_findings(survey))
    assert found.level == "error"
    assert "40 of 40 stamps are zero" in found.text
    assert "stamp each message" in found.fix


@pytest.mark.parametrize(
    ("age_s", "words"), [(-0.2, "stamps up to 200 ms ahead of the clock are refused"), (2.0, "2.0 s old")]
)
def test_stamps_ahead_of_or_far_behind_the_clock_are_an_error(age_s: float, words: str) -> None:
    shifted = {
        name: replace(topic, arrivals=arrivals(age_ns=int(age_s * 1e9)))
        for name, topic in HEALTHY.cameras.items()
    }
    found = bad(camera_findings(replace(HEALTHY, cameras=shifted)))
    assert {finding.level for finding in found} == {"error"}
    assert all(words in finding.text and "chrony" in finding.fix for finding in found)


@pytest.mark.parametrize("age_s", [-0.05, 0.4])
def test_stamps_within_the_parameters_are_fine(age_s: float) -> None:
    shifted = {
        name: replace(topic, arrivals=arrivals(age_ns=int(age_s * 1e9)))
        for name, topic in HEALTHY.cameras.items()
    }
    assert not bad(camera_findings(replace(HEALTHY, cameras=shifted)))


def test_stamps_of_a_simulator_beside_the_computers_time_ask_for_one_time() -> None:
    shifted = {
        name: replace(topic, arrivals=arrivals(age_ns=NOW_NS - 10**9))
        for name, topic in HEALTHY.cameras.items()
    }
    found = bad(camera_findings(replace(HEALTHY, cameras=shifted)))
    assert all("use_sim_time" in finding.fix and "days old" in finding.text for finding in found)


def test_simulated_time_is_compared_with_the_clock_topic() -> None:
    policy = replace(HEALTHY.policy, uses_sim_time=True)
    simulated = tuple(
        replace(arrival, stamp_ns=index * PERIOD_NS + 1, sim_ns=index * PERIOD_NS + AGE_NS + 1)
        for index, arrival in enumerate(arrivals())
    )
    cameras = {name: replace(topic, arrivals=simulated) for name, topic in HEALTHY.cameras.items()}
    assert not bad(camera_findings(replace(HEALTHY, policy=policy, cameras=cameras)))


def test_repeated_stamps_are_a_warning() -> None:
    stamps = [NOW_NS + (index // 2) * 2 * PERIOD_NS for index in range(40)]
    survey = replace(HEALTHY, cameras={**HEALTHY.cameras, "wrist": stamped(WRIST, stamps)})
    found = only(camera_findings(survey))
    assert found.level == "warning"
    assert "20 of 40 stamps are not newer" in found.text


def test_cameras_whose_stamps_never_agree_are_an_error_and_seldom_a_warning() -> None:
    stamps = WRIST.stamps_ns
    never = stamped(WRIST, [stamp + 10**9 * 60 for stamp in stamps])
    seldom = stamped(WRIST, [*stamps[:10], *(stamp + 10**9 * 60 for stamp in stamps[10:])])
    found = [
        only(pair_findings(replace(HEALTHY, cameras={**HEALTHY.cameras, "wrist": wrist})))
        for wrist in (never, seldom)
    ]
    assert [finding.level for finding in found] == ["error", "warning"]
    assert found[0].text.endswith("no image has a partner")
    assert found[1].text.endswith("25% of the images have a partner")
    assert all("camera.max_pair_skew_s" in finding.fix for finding in found)


def test_one_camera_alone_has_nothing_to_agree_with() -> None:
    assert not list(pair_findings(replace(HEALTHY, cameras={"wrist": WRIST})))


def test_a_healthy_state_is_told() -> None:
    found = list(state_findings(HEALTHY))
    assert not bad(found)
    assert found[0].text == "/robot/eef_pose: 20.0 Hz, best effort from /driver, 5 ms old"


def test_a_missing_state_is_an_error_beside_a_policy_node_and_one_note_without() -> None:
    survey = replace(HEALTHY, states=tuple(map(unpublished, HEALTHY.states)))
    assert [finding.level for finding in state_findings(survey)] == ["error", "error"]
    found = only(state_findings(without_policy(survey)))
    assert (found.level, found.fix) == ("note", "start the robot's driver")
    assert "/robot/eef_pose or /joint_states" in found.text


def test_a_gripper_of_other_names_is_an_error_with_the_parameter() -> None:
    joints = replace(HEALTHY.states[1], joint_names=frozenset({("joint1", "panda_finger_joint1")}))
    found = only(state_findings(with_state(1, joints)))
    assert found.level == "error"
    assert found.text.endswith("heard are joint1, panda_finger_joint1")
    assert "proprio.gripper_joints" in found.fix


def test_a_gripper_spread_over_several_messages_is_an_error() -> None:
    joints = replace(HEALTHY.states[1], joint_names=frozenset({("finger_left",), ("finger_right",)}))
    assert only(state_findings(with_state(1, joints))).level == "error"


def test_joint_states_may_have_several_publishers_and_a_pose_only_one() -> None:
    for index, levels in ((0, ["error"]), (1, [])):
        topic = HEALTHY.states[index]
        both = replace(topic, publishers=(*topic.publishers, end("/other", topic.type_name)))
        assert [finding.level for finding in bad(state_findings(with_state(index, both)))] == levels


def test_a_state_without_stamps_is_judged_by_its_gaps_alone() -> None:
    array = "std_msgs/msg/Float64MultiArray"
    topic = stamped(
        replace(HEALTHY.states[0], type_name=array, publishers=(end("/driver", array),)), [None] * 40
    )
    assert not bad(state_findings(replace(HEALTHY, states=(topic,))))


def test_the_nodes_own_parameters_are_what_counts() -> None:
    config = with_values(HEALTHY.config, {"stale_after_s": 0.01, "proprio.gripper_joints": ["a", "b"]})
    survey = replace(HEALTHY, policy=replace(HEALTHY.policy, config=config))
    texts = "\n".join(finding.text for finding in bad(state_findings(survey)))
    assert "the node stops after 10 ms" in texts
    assert "the gripper's joints a, b; heard are" in texts
