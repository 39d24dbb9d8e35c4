"""Directories that appear whole or not at all."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from lightvla_ros.backends.staging import staged
from lightvla_ros.core.errors import BundleError


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A directory with an old file, to be replaced."""
    directory = tmp_path / "plans" / "set"
    directory.mkdir(parents=True)
    (directory / "old").write_text("old")
    return directory


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_the_new_directory_replaces_the_old_one_whole(old: Path) -> None:
    with staged(old) as staging:
        (staging / "new").write_text("new")
        assert names(old) == ["old"]
    assert names(old) == ["new"]
    assert names(old.parent) == ["set"]


def test_an_error_leaves_the_old_directory_and_nothing_else(old: Path) -> None:
    with pytest.raises(KeyboardInterrupt), staged(old) as staging:
        (staging / "new").write_text("new")
        raise KeyboardInterrupt
    assert names(old) == ["old"]
    assert names(old.parent) == ["set"]


def test_a_killed_writer_leaves_the_old_directory_and_the_next_one_clears_its_files(old: Path) -> None:
    script = (
        "import os, signal, sys; from pathlib import Path\n"
        "from lightvla_ros.backends.staging import staged\n"
        "with staged(Path(sys.argv[1])) as staging:\n"
        "    (staging / 'half').write_text('half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", script, str(old)], check=False, timeout=60)
    assert killed.returncode == -9
    assert names(old) == ["old"]
    assert names(old.parent) == [".set.staging", "set"]
    with staged(old) as staging:
        assert names(staging) == []
    assert names(old.parent) == ["set"]


def test_a_second_writer_is_refused_and_disturbs_nothing(old: Path) -> None:
    with staged(old) as staging:
        (staging / "new").write_text("new")
        with pytest.raises(BundleError, match="another process writing it"), staged(old):
            pass
    assert names(old) == ["new"]


def test_a_full_disk_is_a_clear_error_and_leaves_the_old_directory(old: Path) -> None:
    # No file of the process may grow beyond 1 kB: what a full disk does, without filling one.
    script = (
        "import resource, sys; from pathlib import Path\n"
        "from lightvla_ros.backends.staging import staged\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024))\n"
        "with staged(Path(sys.argv[1])) as staging:\n"
        "    (staging / 'new').write_bytes(bytes(4096))\n"
    )
    command = [sys.executable, "-c", script, str(old)]
    failed = subprocess.run(command, check=False, timeout=60, stderr=subprocess.PIPE, text=True)
    last = failed.stderr.splitlines()[-1]
    assert "BundleError" in last
    assert "with room for the files. Fix: free space" in last
    assert names(old) == ["old"]
    assert names(old.parent) == ["set"]


def test_a_place_that_cannot_be_a_directory_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BundleError, match="choose another --out"), staged(tmp_path / "file" / "set"):
        pass
