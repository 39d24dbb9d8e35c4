"""Which Qt for Python is taken, and that nothing but the panel's widgets takes one."""

from __future__ import annotations

import subprocess
import sys

import pytest

BINDINGS = ("python_qt_binding", "PySide6", "PyQt6", "PyQt5")


def python(script: str) -> str:
    """Run a script in a fresh interpreter; returns what it printed."""
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.strip()


def fake(name: str) -> str:
    """Code that puts an empty binding in the place of a real one."""
    return (
        "import sys, types\n"
        f"for part in ('', '.QtCore', '.QtGui', '.QtWidgets'):\n"
        f"    module = sys.modules['{name}' + part] = types.ModuleType('{name}' + part)\n"
        f"    module.Signal = module.pyqtSignal = '{name}'\n"
    )


def test_pictures_and_the_panels_model_load_no_qt() -> None:
    names = ("overlay", "layout", "video", "panel_model", "panel_state", "watched_node")
    modules = [f"lightvla_ros.view.{name}" for name in names]
    loaded = python(
        f"import sys, importlib\nfor name in {modules}: importlib.import_module(name)\n"
        f"print([name for name in {BINDINGS} if name in sys.modules])"
    )
    assert loaded == "[]"


@pytest.mark.parametrize("name", BINDINGS)
def test_a_binding_that_is_loaded_already_is_taken(name: str) -> None:
    """Two in one process crash."""
    assert python(f"{fake(name)}from lightvla_ros.view.qt import Signal, QtCore\nprint(Signal)") == name


def test_rqts_own_choice_comes_first() -> None:
    """It has loaded the binding that it chose as well."""
    both = fake("PyQt5") + fake("python_qt_binding")
    assert python(f"{both}from lightvla_ros.view.qt import Signal\nprint(Signal)") == "python_qt_binding"


def test_a_machine_without_qt_is_told_what_to_install() -> None:
    said = python(
        f"import sys\nfor name in {BINDINGS}: sys.modules[name] = None\n"
        "from lightvla_ros.core.errors import LightVlaError\n"
        "try:\n    import lightvla_ros.view.qt\nexcept LightVlaError as error: print(error)"
    )
    assert "pip install 'lightvla_ros[view]'" in said
    assert all(name in said for name in BINDINGS)
