"""A camera in the panel: its picture as large as fits, and over it what is wrong."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lightvla_ros.view.panel_state import CameraView
from lightvla_ros.view.qt import QtCore, QtGui, QtWidgets

Rgb = tuple[int, int, int]

_FRAME: Rgb = (22, 24, 28)
_RETAINED, _PRUNED = np.array((86, 180, 233), np.uint8), np.array((52, 56, 64), np.uint8)
_COMPLAINT_BACK: Rgb = (240, 180, 60)
_COMPLAINT_TEXT: Rgb = (20, 20, 20)
_OLD_OPACITY = 0.35
# Narrower patches would be all grid.
_NARROWEST_WITH_GRID_PX = 6.0
_MARGIN_PX = 6


class ImageView(QtWidgets.QWidget):
    """Draws a `CameraView`."""

    def __init__(self) -> None:
        super().__init__()
        self.view = CameraView(name="")
        self._pixels: QtGui.QImage | None = None
        self.setMinimumSize(200, 160)
        expanding = QtWidgets.QSizePolicy.Policy.Expanding
        self.setSizePolicy(expanding, expanding)

    def sizeHint(self) -> QtCore.QSize:  # noqa: N802  # Qt's name
        """Whatever a picture's size, the panel's stays."""
        return QtCore.QSize(420, 320)

    def show_view(self, view: CameraView) -> None:
        """Draw a camera; costs little when nothing has changed."""
        if view.image is not self.view.image:
            self._pixels = None if view.image is None else _qt_image(view.image)
        self.view = view
        self.setToolTip(view.topic)
        self.update()

    def paintEvent(self, event: QtGui.QPaintEvent) -> None:  # noqa: N802  # Qt's name
        """Draw title, picture and complaint."""
        painter = QtGui.QPainter(self)
        title_height = self.fontMetrics().height() + _MARGIN_PX
        self._draw_title(painter, QtCore.QRect(0, 0, self.width(), title_height))
        frame = self.rect().adjusted(0, title_height, 0, 0)
        painter.fillRect(frame, QtGui.QColor(*_FRAME))
        if self._pixels is not None:
            self._draw_pixels(painter, frame, self._pixels)
        if self.view.complaint:
            self._draw_complaint(painter, frame)
        # Whenever Python frees it: too late for Qt.
        painter.end()

    def _draw_title(self, painter: QtGui.QPainter, place: QtCore.QRect) -> None:
        name = self.view.name.replace("_", " ")
        font = painter.font()
        font.setBold(True)
        painter.setFont(font)
        painter.setPen(self.palette().color(QtGui.QPalette.ColorRole.WindowText))
        left, right = QtCore.Qt.AlignmentFlag.AlignLeft, QtCore.Qt.AlignmentFlag.AlignRight
        painter.drawText(place, left, name)
        taken = QtGui.QFontMetrics(font).horizontalAdvance(name) + 2 * _MARGIN_PX
        font.setBold(False)
        painter.setFont(font)
        rest = place.adjusted(taken, 0, 0, 0)
        elide = QtCore.Qt.TextElideMode.ElideLeft
        caption = self.fontMetrics().elidedText(self.view.caption, elide, max(0, rest.width()))
        painter.drawText(rest, right, caption)

    def _draw_pixels(self, painter: QtGui.QPainter, frame: QtCore.QRect, pixels: QtGui.QImage) -> None:
        scale = min(frame.width() / pixels.width(), frame.height() / pixels.height())
        width, height = pixels.width() * scale, pixels.height() * scale
        left = frame.left() + (frame.width() - width) / 2
        top = frame.top() + (frame.height() - height) / 2
        place = QtCore.QRectF(left, top, width, height)
        is_mask = self.view.image is not None and self.view.image.ndim == 2
        painter.setRenderHint(QtGui.QPainter.RenderHint.SmoothPixmapTransform, not is_mask)
        painter.setOpacity(_OLD_OPACITY if self.view.is_old else 1.0)
        painter.drawImage(place, pixels)
        if is_mask and scale >= _NARROWEST_WITH_GRID_PX:
            painter.setPen(QtGui.QPen(QtGui.QColor(*_FRAME), 1.0))
            for column in range(1, pixels.width()):
                x = left + column * scale
                painter.drawLine(QtCore.QPointF(x, top), QtCore.QPointF(x, top + height))
            for row in range(1, pixels.height()):
                y = top + row * scale
                painter.drawLine(QtCore.QPointF(left, y), QtCore.QPointF(left + width, y))
        painter.setOpacity(1.0)

    def _draw_complaint(self, painter: QtGui.QPainter, frame: QtCore.QRect) -> None:
        """Write into a band at the lower end, as high as the words need."""
        wrap = QtGui.QTextOption()
        inside = QtCore.QRectF(frame).adjusted(_MARGIN_PX, _MARGIN_PX, -_MARGIN_PX, -_MARGIN_PX)
        words = painter.boundingRect(inside, self.view.complaint, wrap)
        height = min(words.height(), inside.height())
        inside.setTop(inside.bottom() - height)
        band = inside.adjusted(-_MARGIN_PX, -_MARGIN_PX, _MARGIN_PX, _MARGIN_PX)
        painter.fillRect(band, QtGui.QColor(*_COMPLAINT_BACK))
        painter.setPen(QtGui.QColor(*_COMPLAINT_TEXT))
        painter.drawText(inside, self.view.complaint, wrap)


def _qt_image(image: NDArray[np.uint8]) -> QtGui.QImage:
    """Turn uint8 [H, W, 3] RGB or a mask [rows, columns] into an image that owns its pixels."""
    rgb = np.where(image[..., None] > 0, _RETAINED, _PRUNED) if image.ndim == 2 else image
    height, width, channels = rgb.shape
    form = QtGui.QImage.Format.Format_RGB888
    return QtGui.QImage(rgb.tobytes(), width, height, channels * width, form).copy()
