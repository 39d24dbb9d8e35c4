"""The panel as a real Qt widget, drawn into memory, with a model that is told what to show."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from panel_cases import ERROR, NODE, OK, STOPPED, WARN, hear, mask, picture, record, show

from lightvla_ros.core.errors import LightVlaError
from lightvla_ros.view.panel_model import PanelModel
from lightvla_ros.view.panel_state import Mode, Severity

try:
    from lightvla_ros.view.qt import QtCore, QtGui, QtWidgets
except LightVlaError as error:
    pytest.skip(str(error), allow_module_level=True)

from lightvla_ros.view.banner_label import COLOURS
from lightvla_ros.view.panel import SETTINGS, Panel, ask
from lightvla_ros.view.strip_chart import nice_top, thinned


class Asked:
    """Notes what a panel asks for."""

    def __init__(self) -> None:
        self.instructions: list[str] = []
        self.enables: list[bool] = []
        self.resets = 0
        self.questions: list[str] = []
        self.says_yes = True
        self.now_s = 0.0

    def instruct(self, text: str) -> None:
        self.instructions.append(text)

    def enable(self, *, enabled: bool) -> None:
        self.enables.append(enabled)

    def reset(self) -> None:
        self.resets += 1

    def confirm(self, parent: QtWidgets.QWidget, question: str) -> bool:
        self.questions.append(question)
        return self.says_yes


@pytest.fixture(scope="session")
def application() -> QtWidgets.QApplication:
    return QtWidgets.QApplication.instance() or QtWidgets.QApplication(["test"])


@pytest.fixture
def model() -> PanelModel:
    """A model that heard a node at 0 s."""
    model = PanelModel()
    hear(model, 0.0)
    return model


@pytest.fixture
def asked() -> Asked:
    return Asked()


@pytest.fixture
def panel(application: QtWidgets.QApplication, model: PanelModel, asked: Asked) -> Iterator[Panel]:
    panel = Panel(model, asked, confirm=asked.confirm, clock=lambda: asked.now_s)
    panel.stop()
    panel.resize(1280, 800)
    panel.show()
    yield panel
    panel.close()


def at(panel: Panel, asked: Asked, now_s: float) -> None:
    asked.now_s = now_s
    panel.refresh()


def pixels(widget: QtWidgets.QWidget) -> NDArray[np.uint8]:
    """uint8 [H, W, 3] of what a widget looks like."""
    image = widget.grab().toImage().convertToFormat(QtGui.QImage.Format.Format_RGBA8888)
    bits = image.constBits()
    if hasattr(bits, "setsize"):  # PyQt
        bits.setsize(image.sizeInBytes())
    rows = np.frombuffer(bits, np.uint8).reshape(image.height(), image.bytesPerLine() // 4, 4)
    return rows[:, : image.width(), :3].copy()


def num_colours(widget: QtWidgets.QWidget) -> int:
    return len(np.unique(pixels(widget).reshape(-1, 3), axis=0))


def press(widget: QtWidgets.QWidget, key: QtCore.Qt.Key) -> None:
    number = getattr(key, "value", key)  # PyQt5's is the number itself
    for kind in (QtCore.QEvent.Type.KeyPress, QtCore.QEvent.Type.KeyRelease):
        event = QtGui.QKeyEvent(kind, number, QtCore.Qt.KeyboardModifier.NoModifier)
        QtWidgets.QApplication.sendEvent(widget, event)


def write(panel: Panel, text: str) -> None:
    """Type an instruction and press Enter."""
    panel.instruction.line.setEditText(text)
    press(panel.instruction.line, QtCore.Qt.Key.Key_Return)


@pytest.mark.parametrize(
    ("told", "severity"),
    [
        ((OK, {}), Severity.GOOD),
        ((OK, {"stop_reason": "no_instruction"}), Severity.NEUTRAL),
        ((WARN, {"stop_reason": "no_action"}), Severity.WARNING),
        ((ERROR, STOPPED), Severity.ERROR),
    ],
)
def test_the_banner_has_the_colour_of_the_state(
    panel: Panel, model: PanelModel, asked: Asked, told: tuple[int, dict[str, str]], severity: Severity
) -> None:
    level, values = told
    hear(model, 0.1, level, **values)
    at(panel, asked, 0.2)
    colour = QtGui.QColor(COLOURS[severity][0])
    corner = pixels(panel.banner)[panel.banner.height() - 6, panel.banner.width() // 2]
    assert corner.tolist() == [colour.red(), colour.green(), colour.blue()]


def test_a_stop_is_told_with_reason_and_words(panel: Panel, model: PanelModel, asked: Asked) -> None:
    hear(model, 1.0, ERROR, **STOPPED)
    at(panel, asked, 4.0)
    shown = [label.text() for label in panel.banner.findChildren(QtWidgets.QLabel)]
    assert shown == ["STOPPED  stale:wrist  for 3 s", "the newest is 3 s old"]


def test_what_others_wrote_is_never_markup(panel: Panel, model: PanelModel, asked: Asked) -> None:
    hear(model, 0.1, ERROR, stop_reason="fault", stop_message="<b>bold</b>", instruction="<img src=x>")
    at(panel, asked, 0.2)
    labels = panel.findChildren(QtWidgets.QLabel)
    told = [label for label in labels if "<" in label.text()]
    assert len(told) == 2
    assert {label.textFormat() for label in told} == {QtCore.Qt.TextFormat.PlainText}


def test_instruction_epoch_and_engine_are_shown(panel: Panel) -> None:
    assert panel.active_instruction.text() == "instruction: pick up the red cube   (epoch 3)"
    assert panel.engine.text() == "mini on onnxruntime"
    assert panel.nodes.currentText() == NODE


def test_a_click_switches_what_is_shown(panel: Panel, model: PanelModel) -> None:
    assert panel.modes[Mode.OVERLAY].isChecked()
    panel.modes[Mode.MASK].click()
    assert model.mode is Mode.MASK
    assert [button.isChecked() for button in panel.modes.values()] == [False, True, False]


def test_two_cameras_are_side_by_side_and_as_large(panel: Panel) -> None:
    left, right = panel.cameras
    assert (left.view.name, right.view.name) == ("third_person", "wrist")
    assert left.y() == right.y() and left.x() + left.width() <= right.x()
    assert abs(left.width() - right.width()) <= 1 and left.height() == right.height() > 300


def test_a_picture_is_drawn_as_it_is(panel: Panel, model: PanelModel, asked: Asked) -> None:
    red = np.zeros((40, 40, 3), dtype=np.uint8)
    red[..., 0] = 255
    show(model, red, Mode.OVERLAY, 0.1)
    at(panel, asked, 0.2)
    drawn = pixels(panel.cameras[1])
    assert drawn[drawn.shape[0] // 2, drawn.shape[1] // 2].tolist() == [255, 0, 0]


def test_a_mask_is_drawn_in_squares_of_two_colours(panel: Panel, model: PanelModel, asked: Asked) -> None:
    panel.modes[Mode.MASK].click()
    show(model, mask((0, 1)), Mode.MASK, 0.1)
    at(panel, asked, 0.2)
    drawn = pixels(panel.cameras[1])
    inside = drawn[40:-20, drawn.shape[1] // 2 - 100 : drawn.shape[1] // 2 + 100]
    assert len(np.unique(inside.reshape(-1, 3), axis=0)) == 3, "retained, pruned, grid"


@pytest.mark.parametrize("size", [(1, 1), (2000, 3), (3, 2000), (1080, 1920)])
def test_a_picture_of_any_size_is_drawn(
    panel: Panel, model: PanelModel, asked: Asked, size: tuple[int, int]
) -> None:
    before = panel.size()
    show(model, picture(*size), Mode.OVERLAY, 0.1)
    at(panel, asked, 0.2)
    assert num_colours(panel.cameras[1]) > 2
    assert panel.size() == before


@pytest.mark.parametrize("malformed", [np.zeros((4, 4), np.uint8), np.zeros((0, 3, 3), np.uint8)])
def test_a_malformed_picture_becomes_a_message(
    panel: Panel, model: PanelModel, asked: Asked, malformed: NDArray[np.uint8]
) -> None:
    show(model, malformed, Mode.OVERLAY, 0.1)
    at(panel, asked, 0.2)
    assert "expected uint8 [H, W, 3]" in panel.cameras[1].view.complaint
    assert num_colours(panel.cameras[1]) > 10, "the message's letters"


def test_cameras_come_and_go(panel: Panel, model: PanelModel, asked: Asked) -> None:
    hear(model, 0.1, image_topic_overhead="/camera/overhead")
    at(panel, asked, 0.2)
    assert [camera.view.name for camera in panel.cameras] == ["third_person", "wrist", "overhead"]
    model.choose("/nobody")
    at(panel, asked, 0.3)
    assert [camera.view.name for camera in panel.cameras] == ["third_person", "wrist"]


def test_charts_have_an_area_for_each_stage(panel: Panel, model: PanelModel, asked: Asked) -> None:
    empty = [num_colours(chart) for chart in panel.charts]
    for number in range(200):
        model.hear_record(NODE, record(number + 1), number / 5)
    at(panel, asked, 40.0)
    assert [chart.chart.total for chart in panel.charts] == ["4 of 32", "7.5 ms"]
    assert all(num_colours(chart) > before for chart, before in zip(panel.charts, empty, strict=True))


def test_enabling_is_asked_about_and_disabling_is_not(panel: Panel, model: PanelModel, asked: Asked) -> None:
    assert panel.enabled.isChecked()
    panel.enabled.click()
    assert (asked.enables, asked.questions) == ([False], [])
    hear(model, 0.1, enabled="False", stop_reason="disabled")
    at(panel, asked, 0.2)
    assert not panel.enabled.isChecked()
    panel.enabled.click()
    assert asked.enables == [False, True]
    assert NODE in asked.questions[0]


def test_the_switch_shows_what_the_node_tells_not_what_was_clicked(
    panel: Panel, model: PanelModel, asked: Asked
) -> None:
    hear(model, 0.1, enabled="False", stop_reason="disabled")
    at(panel, asked, 0.2)
    asked.says_yes = False
    panel.enabled.click()
    assert (asked.enables, len(asked.questions)) == ([], 1)
    assert not panel.enabled.isChecked()
    asked.says_yes = True
    panel.enabled.click()
    at(panel, asked, 0.3)
    assert not panel.enabled.isChecked(), "until it answers"
    model.answer("commands are enabled", enabled=True)
    at(panel, asked, 0.4)
    assert panel.enabled.isChecked()
    assert panel.answer.text() == "commands are enabled"


def test_a_reset_is_asked_about_because_the_robot_may_move(panel: Panel, asked: Asked) -> None:
    asked.says_yes = False
    panel.reset.click()
    assert (asked.resets, len(asked.questions)) == (0, 1)
    assert NODE in asked.questions[0]
    asked.says_yes = True
    panel.reset.click()
    assert asked.resets == 1


@pytest.mark.parametrize(("key", "answer"), [("Key_Y", True), ("Key_Return", False), ("Key_Escape", False)])
def test_the_dialog_takes_no_for_an_answer(panel: Panel, key: str, answer: bool) -> None:
    def reply() -> None:
        dialog = QtWidgets.QApplication.activeModalWidget()
        if key == "Key_Y":
            buttons = {button.text().replace("&", ""): button for button in dialog.buttons()}
            buttons["Yes"].click()
        else:
            press(dialog, getattr(QtCore.Qt.Key, key))

    QtCore.QTimer.singleShot(50, reply)
    assert ask(panel, "Let it move?") is answer


def test_nothing_can_be_asked_of_a_node_that_is_not_known(
    application: QtWidgets.QApplication, asked: Asked
) -> None:
    panel = Panel(PanelModel(), asked, clock=lambda: 0.0)
    panel.stop()
    assert not panel.enabled.isEnabled()
    assert not panel.instruction.isEnabled()
    assert not panel.reset.isEnabled()


def test_enter_sends_an_instruction_and_history_has_the_newest_first(panel: Panel, asked: Asked) -> None:
    for text in ("open the drawer", "  close the drawer ", "open the drawer"):
        write(panel, text)
    assert asked.instructions == ["open the drawer", "close the drawer", "open the drawer"]
    assert panel.instruction.history == ["open the drawer", "close the drawer"]


def test_what_is_typed_is_sent_also_where_the_history_begins_alike(panel: Panel, asked: Asked) -> None:
    write(panel, "open the drawer")
    write(panel, "open the")
    assert asked.instructions[-1] == "open the"


def test_the_history_is_bounded(panel: Panel) -> None:
    for number in range(30):
        write(panel, f"instruction {number}")
    assert panel.instruction.history[0] == "instruction 29"
    assert len(panel.instruction.history) == 20


def test_an_empty_line_is_not_sent_and_stop_is_at_once(panel: Panel, asked: Asked) -> None:
    write(panel, "  ")
    assert asked.instructions == []
    panel.instruction.stop_button.click()
    assert (asked.instructions, asked.questions) == ([""], [])
    assert panel.instruction.history == []


def test_settings_come_back(panel: Panel, model: PanelModel, asked: Asked) -> None:
    panel.modes[Mode.IMAGE].click()
    model.choose("/left/lightvla_policy")
    write(panel, 'say "hello", please')
    saved = panel.save_settings()
    assert set(saved) == set(SETTINGS)
    other = Panel(PanelModel(), asked, clock=lambda: 0.0)
    other.stop()
    other.restore_settings(saved)
    assert other.save_settings() == saved
    assert other.modes[Mode.IMAGE].isChecked()
    assert other.nodes.currentText() == "/left/lightvla_policy"


@pytest.mark.parametrize(
    "kept",
    [{}, {"mode": "x-ray", "node": "", "history": "["}, {"history": '{"a": 1}'}, {"history": "[1, null]"}],
)
def test_settings_of_something_else_change_nothing(panel: Panel, kept: dict[str, str]) -> None:
    before = panel.save_settings()
    panel.restore_settings(kept)
    assert panel.save_settings() == before


def test_a_node_that_was_only_shown_is_not_remembered(panel: Panel) -> None:
    assert panel.save_settings()["node"] == ""


def test_choosing_a_node_shows_it(panel: Panel, model: PanelModel, asked: Asked) -> None:
    hear(model, 0.1, node="/left/lightvla_policy", instruction="wait")
    at(panel, asked, 0.2)
    panel.nodes.textActivated.emit("/left/lightvla_policy")
    at(panel, asked, 0.3)
    assert panel.nodes.currentText() == "/left/lightvla_policy"
    assert panel.active_instruction.text().startswith("instruction: wait")


def test_a_screenshot_shows_the_whole_panel(
    panel: Panel, model: PanelModel, asked: Asked, tmp_path: Path
) -> None:
    for camera in ("third_person", "wrist"):
        show(model, picture(), Mode.OVERLAY, 0.1, camera=camera)
    at(panel, asked, 0.2)
    assert panel.grab().save(str(tmp_path / "panel.png"))
    assert pixels(panel).shape == (800, 1280, 3)
    assert num_colours(panel) > 1000


def test_it_is_readable_on_a_dark_desktop(panel: Panel, model: PanelModel, asked: Asked) -> None:
    palette = QtGui.QPalette(QtGui.QColor(40, 40, 44))
    palette.setColor(QtGui.QPalette.ColorRole.WindowText, QtGui.QColor(230, 230, 230))
    panel.setPalette(palette)
    at(panel, asked, 0.2)
    title = pixels(panel.charts[0])[:16, :120].astype(int)
    assert title.max() - title.min() > 150


def test_it_fits_a_small_dock(panel: Panel) -> None:
    smallest = panel.minimumSizeHint()
    assert smallest.width() <= 800 and smallest.height() <= 560


@pytest.mark.parametrize(
    ("greatest", "top"), [(0, 1), (1, 1), (1.5, 2), (35, 40), (41, 60), (100, 100), (101, 200)]
)
def test_axes_end_at_short_numbers(greatest: float, top: float) -> None:
    assert nice_top(greatest) == top


def test_thinning_keeps_the_peaks() -> None:
    times_s = np.linspace(-60.0, 0.0, 3000)
    total = np.ones(3000)
    total[1234] = 9.0
    chosen = thinned(times_s, total, 0.5)
    assert len(chosen) <= 122
    assert 1234 in chosen
    assert (np.diff(chosen) > 0).all()
    assert thinned(np.empty(0), np.empty(0), 0.5).size == 0
