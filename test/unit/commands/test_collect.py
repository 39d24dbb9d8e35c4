"""`lightvla collect` before it collects."""

from __future__ import annotations

from pathlib import Path

import pytest

from lightvla_ros.cli import main


@pytest.mark.parametrize(("is_folder", "got"), [(True, "which is not empty"), (False, "which is a file")])
def test_what_is_there_already_is_refused_before_anything_starts(
    tmp_path: Path, is_folder: bool, got: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "demos"
    notes = out / "notes.txt" if is_folder else out
    notes.parent.mkdir(exist_ok=True)
    notes.write_text("mine")
    assert main(["collect", "--out", str(out), "--episodes", "1", "--workers", "1"]) == 1
    told = f"--out; got {out}, {got}; expected an empty or new directory. Fix: choose another --out"
    assert capsys.readouterr().err == f"lightvla collect: error: {told}\n", "and no progress bar"
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [notes]
    assert notes.read_text() == "mine"


def test_an_empty_folder_is_as_good_as_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--out", str(tmp_path), "--policy", "nobody"]
    assert main(["collect", *options]) == 1
    assert "nobody" in capsys.readouterr().err, "it got as far as the policy"
