"""The panel as a plain Qt widget: what a policy looks at, what it costs, and what it is told."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import Protocol

from lightvla_ros.view.banner_label import BannerLabel
from lightvla_ros.view.image_view import ImageView
from lightvla_ros.view.instruction_field import InstructionField
from lightvla_ros.view.panel_model import PanelModel
from lightvla_ros.view.panel_state import CameraView, Mode, PanelState
from lightvla_ros.view.qt import QtCore, QtWidgets
from lightvla_ros.view.strip_chart import StripChart

REFRESH_S = 1 / 15
# What `save_settings` keeps.
SETTINGS = ("mode", "node", "history")
# Charts move slowly, and drawing them is what costs.
_CHART_S = 0.25
_COLUMN_GAP_PX = 14
# Shown before a node has named its cameras.
_AWAITED = (CameraView(name="third_person"), CameraView(name="wrist"))
_ENABLE_QUESTION = "Let {node} move the robot? It begins as soon as there is an instruction."
_RESET_QUESTION = "Reset {node} after a fault or an emergency stop? The robot may go on moving at once."


class Commands(Protocol):
    """What the panel asks of a policy node."""

    def instruct(self, text: str) -> None:
        """Give it another instruction; an empty one stops it."""

    def enable(self, *, enabled: bool) -> None:
        """Let it move the robot, or no longer."""

    def reset(self) -> None:
        """Make it forget faults and an emergency stop."""


class Panel(QtWidgets.QWidget):
    """Shows a `PanelModel` and passes on what a person asks for.

    Args:
        model: what to show.
        commands: takes instructions and the enable switch.
        confirm: asks a person yes or no.
        clock: seconds, the clock of the model.
    """

    def __init__(
        self,
        model: PanelModel,
        commands: Commands,
        *,
        confirm: Callable[[QtWidgets.QWidget, str], bool] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self._model, self._commands = model, commands
        self._confirm = confirm or ask
        self._clock = clock
        self._charts_due_s = 0.0
        self.setWindowTitle("LightVLA policy")
        self.setObjectName("LightVlaPanel")
        self._make_widgets()
        self._lay_out()
        self.refresh()
        self._timer = QtCore.QTimer(self)
        self._timer.timeout.connect(self.refresh)
        self._timer.start(round(REFRESH_S * 1e3))

    def refresh(self) -> None:
        """Show the present state."""
        now_s = self._clock()
        state = self._model.state(now_s)
        self.banner.show_banner(state.banner)
        self._show_nodes(state)
        self._show_texts(state)
        self._show_cameras(state.cameras or _AWAITED)
        if now_s >= self._charts_due_s:
            self._charts_due_s = now_s + _CHART_S
            for widget, chart in zip(self.charts, self._model.charts(now_s), strict=True):
                widget.show_chart(chart)

    def stop(self) -> None:
        """Show nothing new any more."""
        self._timer.stop()

    def save_settings(self) -> dict[str, str]:
        """Return what a person chose, to be restored another time."""
        return {
            "mode": self._model.mode.value,
            "node": self._model.chosen,
            "history": json.dumps(self.instruction.history),
        }

    def restore_settings(self, settings: Mapping[str, str]) -> None:
        """Take over what `save_settings` gave; what cannot be understood is left as it is."""
        mode = settings.get("mode")
        if mode in [choice.value for choice in Mode]:
            self._model.mode = Mode(mode)
        if settings.get("node"):
            self._model.choose(settings["node"])
        try:
            history = json.loads(settings.get("history") or "[]")
        except ValueError:
            history = []
        if isinstance(history, list):
            self.instruction.history = [text for text in history if isinstance(text, str)]
        self.refresh()

    def _make_widgets(self) -> None:
        self.banner = BannerLabel()
        self.nodes = QtWidgets.QComboBox()
        self.nodes.setSizeAdjustPolicy(QtWidgets.QComboBox.SizeAdjustPolicy.AdjustToContents)
        self.nodes.setMinimumContentsLength(18)
        self.nodes.setToolTip("policy nodes that were heard on /diagnostics")
        self.nodes.textActivated.connect(self._model.choose)
        self.modes = {mode: QtWidgets.QRadioButton(mode.value) for mode in Mode}
        for mode, button in self.modes.items():
            button.clicked.connect(lambda *_, mode=mode: self._on_mode(mode))
        self.active_instruction, self.engine = _label(is_bold=True), QtWidgets.QLabel()
        self.cameras: list[ImageView] = []
        self.charts = [StripChart(title) for title in ("tokens retained", "inference, ms")]
        self.problems = _label()
        self.answer = _label()
        self.instruction = InstructionField(self._commands.instruct)
        self.enabled = QtWidgets.QCheckBox("commands enabled")
        self.enabled.setToolTip("whether the node may move the robot, as its diagnostics tell")
        self.enabled.clicked.connect(self._on_enable)
        self.reset = QtWidgets.QPushButton("Reset")
        self.reset.setToolTip("go on after a fault or an emergency stop, once it is safe")
        self.reset.clicked.connect(self._on_reset)

    def _lay_out(self) -> None:
        chooser = QtWidgets.QHBoxLayout()
        chooser.addWidget(self.nodes)
        chooser.addWidget(self.engine)
        chooser.addStretch(1)
        chooser.addWidget(QtWidgets.QLabel("show"))
        for button in self.modes.values():
            chooser.addWidget(button)
        self._camera_row = QtWidgets.QHBoxLayout()
        chart_row = QtWidgets.QHBoxLayout()
        for row in (self._camera_row, chart_row):
            row.setSpacing(_COLUMN_GAP_PX)
        for chart in self.charts:
            chart_row.addWidget(chart)
        asked = QtWidgets.QHBoxLayout()
        asked.addWidget(self.instruction, 1)
        asked.addSpacing(_COLUMN_GAP_PX)
        asked.addWidget(self.enabled)
        asked.addWidget(self.reset)
        column = QtWidgets.QVBoxLayout(self)
        column.addWidget(self.banner)
        column.addLayout(chooser)
        column.addWidget(self.active_instruction)
        column.addLayout(self._camera_row, 2)
        column.addLayout(chart_row, 1)
        column.addWidget(self.problems)
        column.addLayout(asked)
        column.addWidget(self.answer)

    def _show_nodes(self, state: PanelState) -> None:
        shown = tuple(self.nodes.itemText(number) for number in range(self.nodes.count()))
        if shown != state.nodes:
            self.nodes.clear()
            self.nodes.addItems(list(state.nodes))
        if state.node and self.nodes.currentText() != state.node:
            self.nodes.setCurrentText(state.node)

    def _show_texts(self, state: PanelState) -> None:
        self.modes[state.mode].setChecked(True)
        epoch = f"   (epoch {state.epoch})" if state.epoch else ""
        _set_text(self.active_instruction, f"instruction: {state.instruction or 'none'}{epoch}")
        _set_text(self.engine, state.engine)
        _set_text(self.problems, "\n".join(state.problems))
        self.problems.setVisible(bool(state.problems))
        _set_text(self.answer, state.answer)
        self.enabled.setChecked(bool(state.is_enabled))
        self.enabled.setEnabled(state.is_enabled is not None)
        self.instruction.setEnabled(bool(state.node))
        self.reset.setEnabled(bool(state.node))

    def _show_cameras(self, views: tuple[CameraView, ...]) -> None:
        while len(self.cameras) < len(views):
            self.cameras.append(ImageView())
            self._camera_row.addWidget(self.cameras[-1], 1)
        while len(self.cameras) > len(views):
            gone = self.cameras.pop()
            self._camera_row.removeWidget(gone)
            gone.deleteLater()
        for widget, view in zip(self.cameras, views, strict=True):
            widget.show_view(view)

    def _on_mode(self, mode: Mode) -> None:
        self._model.mode = mode
        self.refresh()

    def _on_enable(self, wanted: bool) -> None:
        """Pass on a click; the box itself shows what the node tells."""
        node = self._model.wanted().node
        self.enabled.setChecked(not wanted)
        # Whoever wants the robot to stop is not asked.
        if not wanted or self._confirm(self, _ENABLE_QUESTION.format(node=node)):
            self._commands.enable(enabled=wanted)

    def _on_reset(self) -> None:
        if self._confirm(self, _RESET_QUESTION.format(node=self._model.wanted().node)):
            self._commands.reset()


def ask(parent: QtWidgets.QWidget, question: str) -> bool:
    """Ask yes or no in a dialog; no is what Enter and Escape say."""
    buttons = QtWidgets.QMessageBox.StandardButton
    answer = QtWidgets.QMessageBox.question(
        parent, "LightVLA policy", question, buttons.Yes | buttons.No, buttons.No
    )
    return answer == buttons.Yes


def _label(*, is_bold: bool = False) -> QtWidgets.QLabel:
    """Make a label that shows what others wrote as it is, never as markup."""
    label = QtWidgets.QLabel()
    label.setTextFormat(QtCore.Qt.TextFormat.PlainText)
    label.setWordWrap(True)
    font = label.font()
    font.setBold(is_bold)
    label.setFont(font)
    return label


def _set_text(label: QtWidgets.QLabel, text: str) -> None:
    if label.text() != text:
        label.setText(text)
