"""Bad input to the running node: a message that says what, got, expected and fix, and nothing commanded."""

from __future__ import annotations

from collections.abc import Callable

from harness import Bench, call
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image
from std_srvs.srv import Trigger

MakeBench = Callable[..., Bench]


def test_an_overlong_instruction_stops_and_says_why(moving: Bench) -> None:
    moving.robot.instruct("go " * 50)
    moving.wait_for_stop("instruction")
    moving.assert_still()
    assert "got 149 letters; expected at most 100. Fix: shorten it" in moving.message
    moving.robot.instruct("go on")
    moving.wait_for_motion()


def test_an_unknown_encoding_stops_and_a_known_one_goes_on(moving: Bench) -> None:
    moving.robot.encoding = "bayer_rggb16"
    moving.wait_until(lambda: (moving.reason or "").startswith("refused:"), "refusal")
    moving.assert_still()
    assert "got 'bayer_rggb16'; expected one of rgb8" in moving.message
    moving.robot.encoding = "bgr8"
    moving.wait_for_motion()


def test_a_changed_image_size_stops_until_reset(moving: Bench) -> None:
    moving.robot.size = (24, 32)
    moving.wait_until(lambda: (moving.reason or "").startswith("refused:"), "refusal")
    moving.assert_still()
    assert "got 32x24 pixels; expected 64x48" in moving.message
    assert call(moving, Trigger, "/lightvla_policy/reset", Trigger.Request()).success
    moving.wait_for_motion()


def test_a_state_that_is_not_finite_stops_at_once(moving: Bench) -> None:
    moving.robot.fingers = [float("nan"), 0.0]
    moving.wait_for_stop("refused:robot_state")
    moving.assert_still()
    assert "expected finite numbers" in moving.message
    moving.robot.fingers = [0.04, -0.04]
    moving.wait_for_motion()


def test_two_publishers_on_one_camera_stop_motion(moving: Bench) -> None:
    rival = moving.robot.create_publisher(Image, "/camera/wrist/image", qos_profile_sensor_data)
    moving.wait_for_stop("two_publishers:wrist")
    moving.assert_still()
    assert "/camera/wrist/image has 2 publishers" in moving.message
    moving.robot.destroy_publisher(rival)
    moving.wait_for_motion()


def test_joint_states_without_the_grippers_names_are_told(make_bench: MakeBench) -> None:
    bench = make_bench(proprio__gripper_joints=["left_knuckle", "right_knuckle"])
    bench.activate()
    bench.robot.instruct("go")
    bench.wait_for_stop("missing:robot_state")
    told = (
        "the newest message on /joint_states has joints finger_left, finger_right; "
        "expected left_knuckle, right_knuckle. Fix: set proprio.gripper_joints"
    )
    bench.wait_until(lambda: told in bench.robot.status.get("stop_message", ""), "the names")


def test_a_missing_camera_is_named(make_bench: MakeBench) -> None:
    bench = make_bench(enable_actuation=True)
    bench.robot.cameras.discard("wrist")
    bench.activate()
    bench.robot.instruct("go")
    bench.wait_for_stop("missing:wrist")
    bench.assert_still()
    assert bench.robot.commands == []
    bench.wait_until(
        lambda: (
            "/camera/wrist/image has 1 publishers: /robot (sensor_msgs/msg/Image, best_effort"
            in bench.robot.status.get("stop_message", "")
        ),
        "diagnostics that name the topic and its publisher",
    )
