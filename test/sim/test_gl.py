from __future__ import annotations

import os
import subprocess
import sys

CREATE = """
from lightvla_ros.core.errors import ConfigError
from lightvla_ros.sim.tabletop import Tabletop
Tabletop(render=False).close()
try:
    Tabletop(render=True)
except ConfigError as error:
    print(error)
"""


def test_without_a_graphics_library_the_packages_are_named_and_blind_worlds_work() -> None:
    result = subprocess.run(
        [sys.executable, "-c", CREATE],
        env={**os.environ, "MUJOCO_GL": "disable"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "libegl1 libgl1-mesa-dri" in result.stdout
    assert "libosmesa6" in result.stdout


def test_the_users_choice_of_graphics_is_kept() -> None:
    show = "import os, lightvla_ros.sim.gl; print(os.environ['MUJOCO_GL'])"
    result = subprocess.run(
        [sys.executable, "-c", show],
        env={**os.environ, "MUJOCO_GL": "disable"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert result.stdout.strip() == "disable"
