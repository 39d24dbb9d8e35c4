"""What the panel shows of what it heard, at which time."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from panel_cases import ERROR, NODE, OK, STOPPED, WARN, hear, mask, picture, record, show, without

from lightvla_ros.view.panel_model import PanelModel
from lightvla_ros.view.panel_state import CameraView, Mode, Severity


def wrist(model: PanelModel, now_s: float) -> CameraView:
    return next(view for view in model.state(now_s).cameras if view.name == "wrist")


@pytest.fixture
def model() -> PanelModel:
    """A model that heard a node at 0 s."""
    model = PanelModel()
    hear(model, 0.0)
    return model


def test_before_a_node_is_heard_the_banner_says_what_to_start() -> None:
    state = PanelModel().state(100.0)
    assert (state.banner.severity, state.banner.headline) == (Severity.NEUTRAL, "WAITING")
    assert "ros2 launch lightvla_ros policy.launch.py" in state.banner.detail
    assert (state.node, state.nodes, state.cameras, state.is_enabled) == ("", (), (), None)


@pytest.mark.parametrize(
    ("level", "reason", "severity", "state"),
    [
        (OK, "", Severity.GOOD, "ACTING"),
        (OK, "no_instruction", Severity.NEUTRAL, "STOPPED"),
        (OK, "disabled", Severity.NEUTRAL, "STOPPED"),
        (OK, "awaiting_chunk", Severity.NEUTRAL, "HOLDING"),
        (WARN, "no_action", Severity.WARNING, "HOLDING"),
        (WARN, "waiting:wrist", Severity.WARNING, "STOPPED"),
        (WARN, "stale:wrist", Severity.ERROR, "STOPPED"),
        (ERROR, "estop", Severity.ERROR, "STOPPED"),
    ],
)
def test_the_banner_is_red_when_the_robot_stands_still_against_the_wish(
    level: int, reason: str, severity: Severity, state: str
) -> None:
    model = PanelModel()
    hear(model, 0.0, level, stop_reason=reason, stop_message="why")
    banner = model.state(0.0).banner
    assert banner.severity is severity
    assert banner.headline == "  ".join(filter(None, (state, reason)))
    assert banner.detail == ("why" if reason else "10.0 inferences, 20.0 commands a second")


def test_the_banner_tells_since_when(model: PanelModel) -> None:
    hear(model, 1.0, WARN, **STOPPED)
    assert model.state(4.0).banner.headline == "STOPPED  stale:wrist  for 3 s"


def test_a_silent_node_is_red_whatever_it_said_last(model: PanelModel) -> None:
    banner = model.state(12.5).banner
    assert (banner.severity, banner.headline) == (Severity.ERROR, "SILENT  nothing heard for 12 s")
    hear(model, 13.0)
    assert model.state(13.0).banner.severity is Severity.GOOD


def test_what_the_node_acts_on_is_told(model: PanelModel) -> None:
    state = model.state(0.5)
    assert (state.instruction, state.epoch, state.engine) == (
        "pick up the red cube",
        "3",
        "mini on onnxruntime",
    )
    assert state.is_enabled is True


def test_of_a_node_that_is_not_configured_nothing_is_known_of_the_switch() -> None:
    model = PanelModel()
    model.hear_status(
        "lightvla_policy: policy", ERROR, "no such engine", {"stop_reason": "no such engine"}, 0.0
    )
    state = model.state(0.0)
    assert state.is_enabled is None
    assert (state.banner.severity, state.banner.detail) == (Severity.ERROR, "no such engine")


def test_the_answer_of_the_switch_counts_until_diagnostics_tell(model: PanelModel) -> None:
    model.answer("commands are disabled", enabled=False)
    state = model.state(0.1)
    assert (state.is_enabled, state.answer) == (False, "commands are disabled")
    hear(model, 1.0)
    assert model.state(1.0).is_enabled is True


def test_other_programs_diagnostics_are_ignored() -> None:
    model = PanelModel()
    model.hear_status("camera driver", ERROR, "hot", {}, 0.0)
    assert model.state(0.0).nodes == ()


def test_the_usual_node_is_shown_until_another_is_chosen() -> None:
    model = PanelModel()
    hear(model, 0.0, node="/left/lightvla_policy")
    assert model.state(0.0).node == "/left/lightvla_policy"
    hear(model, 0.0)
    assert model.state(0.0).node == NODE
    model.choose("left/lightvla_policy")
    state = model.state(0.0)
    assert (state.node, state.nodes) == ("/left/lightvla_policy", ("/left/lightvla_policy", NODE))
    assert model.wanted().pictures["wrist"] == "/left/policy/overlay/wrist"
    assert model.wanted().records == "/left/policy/inference"


def test_a_chosen_node_that_was_not_heard_is_awaited_by_name(model: PanelModel) -> None:
    model.choose("/right/lightvla_policy")
    state = model.state(0.0)
    assert state.node in state.nodes
    assert "/right/lightvla_policy" in state.banner.detail
    assert model.charts(0.0) == (None, None)


@pytest.mark.parametrize(
    ("mode", "topics"),
    [
        (Mode.IMAGE, ["/camera/third_person/image", "/arm/camera/compressed"]),
        (Mode.MASK, ["/policy/retained_tokens/third_person", "/policy/retained_tokens/wrist"]),
        (Mode.OVERLAY, ["/policy/overlay/third_person", "/policy/overlay/wrist"]),
    ],
)
def test_only_what_is_shown_is_listened_to(model: PanelModel, mode: Mode, topics: list[str]) -> None:
    model.mode = mode
    assert list(model.wanted().pictures.values()) == topics


def test_cameras_stay_when_the_node_is_cleaned_up(model: PanelModel) -> None:
    model.hear_status("lightvla_policy: policy", OK, "", {"stop_reason": "not configured"}, 1.0)
    assert [view.name for view in model.state(1.0).cameras] == ["third_person", "wrist"]


def test_a_picture_comes_with_what_was_retained_of_it(model: PanelModel) -> None:
    model.hear_record(NODE, record(7, retained=(1, 2, 3)), 0.1)
    model.hear_record(NODE, record(8), 0.15)
    show(model, picture(), Mode.OVERLAY, 0.2, stamp_ns=7)
    view = wrist(model, 0.3)
    assert (view.caption, view.complaint, view.is_old) == ("3 of 16 retained, 64x48 px", "", False)


def test_a_mask_is_shown_as_a_grid_with_its_count(model: PanelModel) -> None:
    model.mode = Mode.MASK
    model.hear_record(NODE, record(1), 0.1)
    show(model, np.repeat(mask()[..., None], 3, axis=2), Mode.MASK, 0.2)
    view = wrist(model, 0.3)
    assert view.image is not None and view.image.shape == (4, 4)
    assert (view.caption, view.complaint) == ("2 of 16 retained", "")


@pytest.mark.parametrize(
    ("shown", "complaint"),
    [
        (mask(grid=(8, 4)), "the mask has 4x8 patches, its inference 4x4"),
        (mask((1, 2, 3)), "the mask retains 3 patches, its inference 2"),
        (mask() // 2, "the mask has other values than 0 and 255: is its topic a camera's image?"),
        (mask().astype(np.float32), "the mask is float32 [4, 4]; expected uint8 [H, W, 3]"),
    ],
)
def test_a_mask_that_contradicts_its_inference_is_told(
    model: PanelModel, shown: np.ndarray, complaint: str
) -> None:
    model.mode = Mode.MASK
    model.hear_record(NODE, record(1), 0.1)
    show(model, shown, Mode.MASK, 0.2)
    assert wrist(model, 0.3).complaint == complaint


@pytest.mark.parametrize("shape", [(48, 64), (48, 64, 4), (0, 64, 3)])
def test_a_picture_of_another_shape_is_told(model: PanelModel, shape: tuple[int, ...]) -> None:
    show(model, np.zeros(shape, dtype=np.uint8), Mode.OVERLAY, 0.2)
    view = wrist(model, 0.3)
    assert view.image is None
    assert view.complaint.startswith("the overlay is uint8 ")


def test_a_picture_smaller_than_the_grid_is_told(model: PanelModel) -> None:
    model.hear_record(NODE, record(1), 0.1)
    show(model, picture(2, 3), Mode.OVERLAY, 0.2)
    assert wrist(model, 0.3).complaint == "the overlay has 3x2 pixels, its inference's grid 4x4 patches"


def test_a_message_that_is_no_picture_is_told_until_a_good_one_comes(model: PanelModel) -> None:
    model.hear_bad_picture(NODE, "wrist", Mode.OVERLAY, "step 3, 7 bytes", 0.2)
    assert wrist(model, 0.3).complaint == "step 3, 7 bytes"
    show(model, picture(), Mode.OVERLAY, 0.4)
    assert wrist(model, 0.5).complaint == ""


def test_a_missing_overlay_is_explained_by_what_the_policy_does(model: PanelModel) -> None:
    hear(model, 1.0, stop_reason="no_instruction", instruction="")
    assert wrist(model, 1.0).complaint == "no overlay yet: the policy is not inferring (no_instruction)"
    show(model, picture(), Mode.OVERLAY, 1.1)
    hear(model, 4.0, stop_reason="no_instruction", instruction="")
    view = wrist(model, 5.2)
    assert view.complaint == "no overlay for 4 s: the policy is not inferring (no_instruction)"
    assert view.is_old and view.image is not None


def test_an_inference_without_its_overlay_names_the_parameter(model: PanelModel) -> None:
    model.hear_record(NODE, record(1), 0.5)
    assert wrist(model, 1.0).complaint == (
        "no overlay yet, though inferences go on. Fix: set the node's masks.overlay to true"
    )


def test_a_picture_of_a_silent_node_is_not_blamed_on_inference(model: PanelModel) -> None:
    assert wrist(model, 10.0).complaint == "no overlay yet: the policy node is silent"


def test_a_camera_without_images_is_named_by_its_topic(model: PanelModel) -> None:
    model.mode = Mode.IMAGE
    assert wrist(model, 0.1).complaint == "no image yet on /arm/camera/compressed"
    show(model, picture(), Mode.IMAGE, 0.2)
    assert wrist(model, 1.0).complaint == ""
    assert wrist(model, 2.2).complaint == "no image for 2 s on /arm/camera/compressed"


def test_a_slow_policy_is_given_time() -> None:
    model = PanelModel()
    hear(model, 0.0, inference_rate_hz="0.50")
    show(model, picture(), Mode.OVERLAY, 0.1)
    assert not wrist(model, 5.0).is_old
    assert wrist(model, 6.5).is_old


def test_what_is_wrong_with_a_topic_is_told_where_it_matters(model: PanelModel) -> None:
    model.tell("/policy/overlay/wrist", "got std_msgs/msg/String")
    model.tell("/policy/inference", "nobody publishes /policy/inference")
    state = model.state(0.5)
    assert [view.complaint for view in state.cameras][1] == "got std_msgs/msg/String"
    assert state.problems == ("nobody publishes /policy/inference",)
    model.tell("/policy/inference", "")
    assert model.state(0.5).problems == ()


@pytest.mark.parametrize("text", ["", "{}", "[1]", without(record(1), "cameras")])
def test_a_record_that_is_none_is_told_until_a_good_one_comes(model: PanelModel, text: str) -> None:
    model.hear_record(NODE, text, 0.1)
    assert "policy/inference" in model.state(0.2).problems[0]
    model.hear_record(NODE, record(1), 0.3)
    assert model.state(0.4).problems == ()


def test_the_charts_have_the_last_minute(model: PanelModel) -> None:
    for second in range(100):
        model.hear_record(NODE, record(second + 1, retained=tuple(range(1 + second % 3))), float(second))
    kept, latency = model.charts(100.0)
    assert kept is not None and latency is not None
    assert kept.times_s[0] == -60.0 and kept.times_s[-1] == -1.0
    assert list(kept.parts) == ["third_person", "wrist"]
    assert kept.parts["wrist"].tolist() == [1 + second % 3 for second in range(40, 100)]
    assert (kept.total, latency.total) == ("2 of 32", "7.5 ms")
    assert latency.parts["decoder"].tolist() == [4.5] * 60


def test_a_record_that_comes_twice_counts_once(model: PanelModel) -> None:
    for _ in range(2):
        model.hear_record(NODE, record(1), 0.1)
    kept, _ = model.charts(0.2)
    assert kept is not None and len(kept.times_s) == 1


def test_what_is_heard_in_one_thread_is_shown_in_another(model: PanelModel) -> None:
    def speak() -> None:
        for number in range(300):
            hear(model, 0.0)
            model.hear_record(NODE, record(number + 2), number / 100)
            show(model, picture(4, 4), Mode.OVERLAY, number / 100, stamp_ns=number + 2)

    speaker = threading.Thread(target=speak)
    speaker.start()
    while speaker.is_alive():
        model.state(3.0)
        model.charts(3.0)
    speaker.join()
    kept, _ = model.charts(3.0)
    assert kept is not None and len(kept.times_s) == 300
