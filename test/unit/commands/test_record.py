"""What `lightvla record` refuses before it looks for a node."""

from __future__ import annotations

from pathlib import Path

import pytest

from lightvla_ros.cli import main


def test_a_recording_is_not_written_over_and_nobody_waits_to_learn_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["record", "--out", str(tmp_path), "--wait-s", "1000"]) != 0
    assert "already there" in capsys.readouterr().err
