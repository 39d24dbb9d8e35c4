"""Where a person writes what the policy is to do."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lightvla_ros.view.qt import QtWidgets

_LONGEST_HISTORY = 20


class InstructionField(QtWidgets.QWidget):
    """A line with its history, newest first; Enter sends it, Stop sends the empty instruction.

    Args:
        send: takes the instruction.
    """

    def __init__(self, send: Callable[[str], None]) -> None:
        super().__init__()
        self._send = send
        self.line = QtWidgets.QComboBox()
        self.line.setInsertPolicy(QtWidgets.QComboBox.InsertPolicy.NoInsert)
        self.line.setMinimumContentsLength(20)
        policy = QtWidgets.QSizePolicy.Policy
        self.line.setSizePolicy(policy.Expanding, policy.Fixed)
        edit = QtWidgets.QLineEdit()
        self.line.setLineEdit(edit)
        # What Enter sends must be what was typed, not what was sent before and begins alike.
        self.line.setCompleter(None)  # type: ignore[arg-type]  # every binding takes None
        edit.setPlaceholderText("instruction, e.g. pick up the red cube and place it in the basket")
        edit.returnPressed.connect(self._on_send)
        self.send_button = QtWidgets.QPushButton("Send")
        self.send_button.clicked.connect(self._on_send)
        self.stop_button = QtWidgets.QPushButton("Stop")
        self.stop_button.setToolTip(
            "Publish the empty instruction: the robot stands still. No emergency stop."
        )
        self.stop_button.setStyleSheet(
            "QPushButton:enabled { background: #b3261e; color: white; font-weight: bold; }"
            "QPushButton { border: 1px solid gray; border-radius: 3px; padding: 4px 18px; }"
            "QPushButton:pressed { background: #7f1b15; }"
        )
        self.stop_button.clicked.connect(lambda: self._send(""))
        row = QtWidgets.QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        for widget in (self.line, self.send_button, self.stop_button):
            row.addWidget(widget)

    @property
    def history(self) -> list[str]:
        """What was sent, newest first."""
        return [self.line.itemText(number) for number in range(self.line.count())]

    @history.setter
    def history(self, texts: Sequence[str]) -> None:
        typed = self.line.currentText()
        self.line.clear()
        self.line.addItems(list(dict.fromkeys(texts))[:_LONGEST_HISTORY])
        self.line.setEditText(typed)

    def _on_send(self) -> None:
        text = self.line.currentText().strip()
        # The empty instruction stops: that has a button of its own.
        if text:
            self.history = [text, *self.history]
            self._send(text)
