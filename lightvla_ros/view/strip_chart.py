"""A strip chart in the panel: the last minute of quantities that add up, one upon the other."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from lightvla_ros.view.panel_state import Chart, Values
from lightvla_ros.view.qt import QtCore, QtGui, QtWidgets
from lightvla_ros.view.watched_node import CHART_S

# Okabe and Ito's, told apart by everybody, on dark and on light.
COLOURS = ((0, 114, 178), (230, 159, 0), (0, 158, 115), (213, 94, 0), (204, 121, 167), (86, 180, 233))
# Inferences that are further apart are not joined.
_GAP_S = 2.0
_MARGIN_PX = 6
_SWATCH_PX = 10
_TICKS_S = (-60, -45, -30, -15, 0)


class StripChart(QtWidgets.QWidget):
    """Draws a `Chart`.

    Args:
        title: shown before there is one.
    """

    def __init__(self, title: str) -> None:
        super().__init__()
        self._empty = Chart(title=title, decimals=0, total="", times_s=np.empty(0), parts={})
        self.chart = self._empty
        self.setMinimumSize(220, 110)
        policy = QtWidgets.QSizePolicy.Policy
        self.setSizePolicy(policy.Expanding, policy.Expanding)

    def sizeHint(self) -> QtCore.QSize:  # noqa: N802  # Qt's name
        """The same whatever is drawn."""
        return QtCore.QSize(420, 170)

    def show_chart(self, chart: Chart | None) -> None:
        """Draw other values, or none."""
        self.chart = chart or self._empty
        self.update()

    def paintEvent(self, event: QtGui.QPaintEvent) -> None:  # noqa: N802  # Qt's name
        """Draw title, legend, axes and areas."""
        painter = QtGui.QPainter(self)
        painter.setRenderHint(QtGui.QPainter.RenderHint.Antialiasing)
        line = self.fontMetrics().height() + 2
        self._draw_title(painter, QtCore.QRect(0, 0, self.width(), line))
        self._draw_legend(painter, QtCore.QRect(0, line, self.width(), line))
        left = self.fontMetrics().horizontalAdvance("0000") + _MARGIN_PX
        plot = QtCore.QRectF(
            left,
            2 * line + _MARGIN_PX,
            self.width() - left - _MARGIN_PX,
            self.height() - 3 * line - 2 * _MARGIN_PX,
        )
        total = sum(self.chart.parts.values(), np.zeros(len(self.chart.times_s)))
        top = nice_top(float(total.max(initial=0.0)))
        painter.fillRect(plot, self.palette().color(QtGui.QPalette.ColorRole.Base))
        self._draw_areas(painter, plot, total, top)
        self._draw_axes(painter, plot, top)
        painter.end()

    def _draw_title(self, painter: QtGui.QPainter, place: QtCore.QRect) -> None:
        painter.setPen(self._text_colour())
        font = painter.font()
        font.setBold(True)
        painter.setFont(font)
        painter.drawText(place, QtCore.Qt.AlignmentFlag.AlignLeft, self.chart.title)
        painter.drawText(
            place.adjusted(0, 0, -_MARGIN_PX, 0), QtCore.Qt.AlignmentFlag.AlignRight, self.chart.total
        )
        font.setBold(False)
        painter.setFont(font)

    def _draw_legend(self, painter: QtGui.QPainter, place: QtCore.QRect) -> None:
        """Write names with the newest values, or names alone where that is too long."""
        names = [name.replace("_", " ") for name in self.chart.parts]
        texts = [
            f"{name} {values[-1]:.{self.chart.decimals}f}"
            for name, values in zip(names, self.chart.parts.values(), strict=True)
        ]
        if sum(map(self._legend_width, texts)) > place.width():
            texts = names
        painter.setPen(self._text_colour())
        x = place.left()
        for number, text in enumerate(texts):
            swatch = QtCore.QRect(x, place.center().y() - _SWATCH_PX // 2, _SWATCH_PX, _SWATCH_PX)
            painter.fillRect(swatch, _colour(number))
            beside = place.adjusted(x + _SWATCH_PX + 4, 0, 0, 0)
            painter.drawText(beside, QtCore.Qt.AlignmentFlag.AlignLeft, text)
            x += self._legend_width(text)

    def _legend_width(self, text: str) -> int:
        return _SWATCH_PX + 4 + self.fontMetrics().horizontalAdvance(text) + 2 * _MARGIN_PX

    def _draw_areas(self, painter: QtGui.QPainter, plot: QtCore.QRectF, total: Values, top: float) -> None:
        chosen = thinned(self.chart.times_s, total, CHART_S / max(1.0, plot.width()))
        times_s = self.chart.times_s[chosen]
        x = plot.right() + times_s / CHART_S * plot.width()
        painter.setPen(QtCore.Qt.PenStyle.NoPen)
        lower = np.full(len(x), plot.bottom())
        for number, values in enumerate(self.chart.parts.values()):
            upper = lower - values[chosen] / top * plot.height()
            painter.setBrush(_colour(number))
            for piece in _pieces(times_s):
                painter.drawPolygon(_area(x[piece], lower[piece], upper[piece]))
            lower = upper

    def _draw_axes(self, painter: QtGui.QPainter, plot: QtCore.QRectF, top: float) -> None:
        text = self._text_colour()
        faint = QtGui.QColor(text)
        faint.setAlpha(60)
        right = QtCore.Qt.AlignmentFlag.AlignRight | QtCore.Qt.AlignmentFlag.AlignVCenter
        height = self.fontMetrics().height()
        for share in (0.0, 0.5, 1.0):
            y = plot.bottom() - share * plot.height()
            painter.setPen(faint)
            painter.drawLine(QtCore.QPointF(plot.left(), y), QtCore.QPointF(plot.right(), y))
            painter.setPen(text)
            place = QtCore.QRectF(0, y - height / 2, plot.left() - 4, height)
            painter.drawText(place, right, f"{share * top:g}")
        for tick_s in _TICKS_S:
            x = plot.right() + tick_s / CHART_S * plot.width()
            painter.setPen(faint)
            painter.drawLine(QtCore.QPointF(x, plot.top()), QtCore.QPointF(x, plot.bottom()))
            painter.setPen(text)
            label = f"{tick_s} s" if tick_s else "now"
            width = self.fontMetrics().horizontalAdvance(label)
            start = min(max(x - width / 2, plot.left()), plot.right() - width)
            painter.drawText(QtCore.QPointF(start, plot.bottom() + height), label)

    def _text_colour(self) -> QtGui.QColor:
        return self.palette().color(QtGui.QPalette.ColorRole.WindowText)


def nice_top(greatest: float) -> float:
    """Return the least of 1, 2, 4, 6, 10, 20, ... that holds a value; its half is short to write."""
    if greatest <= 1.0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(greatest))
    return next(power * step for step in (1, 2, 4, 6, 10) if power * step >= greatest)


def thinned(times_s: Values, total: Values, bin_s: float) -> NDArray[np.intp]:
    """Choose of each bin of time the greatest total, so that no peak is lost; indices, ascending."""
    bins = np.floor(times_s / bin_s)
    order = np.lexsort((total, bins))
    is_last = np.diff(bins[order], append=np.inf) > 0
    return np.sort(order[is_last])


def _pieces(times_s: Values) -> list[slice]:
    """Cut where no inference came for a while."""
    cuts = [0, *(np.flatnonzero(np.diff(times_s) > _GAP_S) + 1).tolist(), len(times_s)]
    return [slice(begin, end) for begin, end in zip(cuts, cuts[1:], strict=False) if end > begin]


def _area(x: Values, lower: Values, upper: Values) -> QtGui.QPolygonF:
    outline = [
        *zip(x.tolist(), upper.tolist(), strict=True),
        *zip(x[::-1].tolist(), lower[::-1].tolist(), strict=True),
    ]
    return QtGui.QPolygonF([QtCore.QPointF(*point) for point in outline])


def _colour(number: int) -> QtGui.QColor:
    return QtGui.QColor(*COLOURS[number % len(COLOURS)])
