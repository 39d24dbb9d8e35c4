"""`lightvla eval`: where its report goes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lightvla_ros.cli import main


def test_the_folder_of_the_report_is_made(tmp_path: Path) -> None:
    pytest.importorskip("mujoco", reason="needs the extra sim")
    out = tmp_path / "results" / "expert.json"
    assert main(["eval", "--policy", "expert", "--episodes", "1", "--max-steps", "1", "--out", str(out)]) == 0
    assert json.loads(out.read_text())["episodes"] == 1
