"""The banner on top of the panel."""

from __future__ import annotations

from lightvla_ros.view.panel_state import Banner, Severity
from lightvla_ros.view.qt import QtCore, QtWidgets

# background, text; the same in dark and light surroundings, like a lamp
COLOURS = {
    Severity.GOOD: ("#2e7d32", "#ffffff"),
    Severity.NEUTRAL: ("#5b6573", "#ffffff"),
    Severity.WARNING: ("#f0b43c", "#141414"),
    Severity.ERROR: ("#b3261e", "#ffffff"),
}


class BannerLabel(QtWidgets.QFrame):
    """State of the node in one line, what to do about it in the next."""

    def __init__(self) -> None:
        super().__init__()
        self.banner: Banner | None = None
        self._headline, self._detail = QtWidgets.QLabel(), QtWidgets.QLabel()
        font = self._headline.font()
        font.setBold(True)
        font.setPointSizeF(font.pointSizeF() * 1.4)
        self._headline.setFont(font)
        for label in (self._headline, self._detail):
            # What others wrote is never markup.
            label.setTextFormat(QtCore.Qt.TextFormat.PlainText)
            label.setTextInteractionFlags(QtCore.Qt.TextInteractionFlag.TextSelectableByMouse)
            label.setWordWrap(True)
        column = QtWidgets.QVBoxLayout(self)
        column.setContentsMargins(10, 6, 10, 6)
        column.setSpacing(2)
        column.addWidget(self._headline)
        column.addWidget(self._detail)
        self.setObjectName("banner")

    def show_banner(self, banner: Banner) -> None:
        """Show another state."""
        if banner == self.banner:
            return
        if self.banner is None or banner.severity is not self.banner.severity:
            back, text = COLOURS[banner.severity]
            self.setStyleSheet(
                f"#banner {{ background: {back}; border-radius: 4px; }} #banner QLabel {{ color: {text}; }}"
            )
        self.banner = banner
        self._headline.setText(banner.headline)
        self._detail.setText(banner.detail)
