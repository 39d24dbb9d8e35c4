"""The one place that chooses a Qt for Python; whatever draws takes Qt from here."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

from lightvla_ros.core.errors import LightVlaError

# rqt's own choice first: two bindings in one process crash.
BINDINGS = ("python_qt_binding", "PySide6", "PyQt6", "PyQt5")


def _load() -> tuple[Any, ...]:
    """Import QtCore, QtGui and QtWidgets of a binding that is loaded already, else of the first there is."""
    reasons: list[str] = []
    for name in sorted(BINDINGS, key=lambda name: name not in sys.modules):
        try:
            return tuple(
                importlib.import_module(f"{name}.{part}") for part in ("QtCore", "QtGui", "QtWidgets")
            )
        except ImportError as error:
            reasons.append(str(error))
    raise LightVlaError(
        "Qt for Python",
        got="; ".join(reasons),
        expected=f"one of {', '.join(BINDINGS)}",
        fix="pip install 'lightvla_ros[view]'; a system library that is named here comes with "
        "`apt install libegl1 libgl1 libglib2.0-0 libxkbcommon0 libdbus-1-3 libfontconfig1`",
    )


# All bindings have the names that Qt 5 and Qt 6 share, with enums in full: the stubs of one check them.
if TYPE_CHECKING:
    from PySide6 import QtCore, QtGui, QtWidgets
    from PySide6.QtCore import Signal
else:
    QtCore, QtGui, QtWidgets = _load()
    Signal = QtCore.Signal if hasattr(QtCore, "Signal") else QtCore.pyqtSignal

__all__ = ["QtCore", "QtGui", "QtWidgets", "Signal"]
