"""`lightvla view`: the panel in a window of its own, without rqt."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from lightvla_ros.core.errors import ConfigError, LightVlaError

if TYPE_CHECKING:
    from lightvla_ros.view.panel import Panel

HELP = "see in a window what the policy looks at, its tokens, latency and state; instruct and enable it"

# What Qt shows windows on; without any of them it ends the process.
_SCREENS = ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of the command."""
    parser.add_argument("--node", help="full name of the node (default: as last time, or the first heard)")
    parser.add_argument("--mode", choices=("image", "mask", "overlay"), help="what to show of the cameras")
    parser.add_argument("--size", default="1280x800", help="of the window, pixels (default: %(default)s)")
    parser.add_argument("--screenshot", type=Path, help="save a picture of the window and end")
    parser.add_argument(
        "--after-s", type=float, default=5.0, help="when to take the screenshot (default: %(default)s)"
    )


def run(args: argparse.Namespace) -> int:
    """Show the panel until its window is closed, Ctrl-C or SIGTERM."""
    width, height = _size(args.size)
    _find_screen(is_needed=args.screenshot is None)
    from lightvla_ros.nodes.observer import observing, spinning
    from lightvla_ros.nodes.panel_link import PanelLink
    from lightvla_ros.view.panel import Panel
    from lightvla_ros.view.panel_model import PanelModel
    from lightvla_ros.view.qt import QtCore, QtWidgets

    application = QtWidgets.QApplication(sys.argv[:1])
    for number in (signal.SIGINT, signal.SIGTERM):
        # Python runs it when the panel next refreshes, so at once. The timer also outlasts the time until
        # `exec`, before which there would be nothing to quit.
        signal.signal(number, lambda *_: QtCore.QTimer.singleShot(0, application.quit))
    model = PanelModel()
    with observing("lightvla_view") as (node, executor):
        link = PanelLink(node, model)
        panel = Panel(model, link)
        panel.resize(width, height)
        with spinning(executor), _settings(panel, args):
            panel.show()
            saved = _screenshot(panel, args) if args.screenshot else None
            application.exec()
        panel.stop()
        link.close()
    if saved is not None and not saved:
        raise LightVlaError(
            f"screenshot {args.screenshot}",
            got="no file",
            expected="a place to write a PNG or JPEG to",
            fix="check the folder and the suffix",
        )
    return 0


@contextmanager
def _settings(panel: Panel, args: argparse.Namespace) -> Iterator[None]:
    """Restore what was chosen last time and keep what is chosen now; a screenshot does neither."""
    from lightvla_ros.view.panel import SETTINGS
    from lightvla_ros.view.qt import QtCore

    store = QtCore.QSettings("lightvla_ros", "view") if args.screenshot is None else None
    kept = {name: str(store.value(name, "")) for name in SETTINGS} if store is not None else {}
    given = {name: value for name, value in (("node", args.node), ("mode", args.mode)) if value}
    panel.restore_settings({**kept, **given})
    yield
    if store is not None:
        for name, value in panel.save_settings().items():
            store.setValue(name, value)


def _screenshot(panel: Panel, args: argparse.Namespace) -> list[bool]:
    """Save a picture of the panel later and end the application; the list then tells whether it was saved."""
    from lightvla_ros.view.qt import QtCore, QtWidgets

    saved: list[bool] = []

    def save() -> None:
        if panel.grab().save(str(args.screenshot)):
            saved.append(True)
        QtWidgets.QApplication.quit()

    QtCore.QTimer.singleShot(round(args.after_s * 1e3), save)
    return saved


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    if not (width.isdecimal() and height.isdecimal() and int(width) > 0 and int(height) > 0):
        raise ConfigError("--size", got=repr(text), expected="WIDTHxHEIGHT in pixels, such as 1280x800")
    return int(width), int(height)


def _find_screen(*, is_needed: bool) -> None:
    """Draw into memory where there is no screen, if that is enough."""
    if any(os.environ.get(name) for name in _SCREENS) or sys.platform != "linux":
        return
    if is_needed:
        raise LightVlaError(
            "screen to show the window on",
            got="neither DISPLAY nor WAYLAND_DISPLAY",
            expected="a graphical session",
            fix="use `ssh -X`, `lightvla top` in a terminal, or --screenshot FILE",
        )
    os.environ["QT_QPA_PLATFORM"] = "offscreen"
