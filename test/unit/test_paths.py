"""Bundles are found by path and by name, in a checkout and in an install."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lightvla_ros.core import paths
from lightvla_ros.core.errors import BundleError
from lightvla_ros.core.paths import engine_directory, share_directories

REPOSITORY = Path(__file__).parents[2]


def make_bundle(share: Path, name: str) -> Path:
    directory = share / "engines" / name
    directory.mkdir(parents=True)
    return directory


def installed_copy(prefix: Path) -> Path:
    """Lay the two modules out as pip does; returns site-packages."""
    site_packages = prefix / "lib" / "python3.11" / "site-packages"
    core = site_packages / "lightvla_ros" / "core"
    core.mkdir(parents=True)
    (core.parent / "__init__.py").touch()
    (core / "__init__.py").touch()
    for module in ("paths.py", "errors.py"):
        shutil.copy(Path(paths.__file__).parent / module, core)
    return site_packages


def found_by(site_packages: Path, name: str, directory: Path) -> str:
    """What a fresh interpreter that sees only this install answers."""
    code = f"from lightvla_ros.core.paths import engine_directory; print(engine_directory({name!r}))"
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=directory,
        env={"PYTHONPATH": str(site_packages), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    return result.stdout.strip()


def test_a_directory_is_taken_as_it_is(tmp_path: Path) -> None:
    assert engine_directory(tmp_path) == tmp_path


def test_a_checkout_is_searched_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    make_bundle(tmp_path / "share" / "lightvla_ros", "mini")
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path))
    assert share_directories()[0] == REPOSITORY
    assert share_directories()[-1] == tmp_path / "share" / "lightvla_ros"


@pytest.mark.parametrize("name", ["other", "engines/other"])
def test_a_name_is_found_under_the_ament_prefixes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    bundle = make_bundle(tmp_path / "share" / "lightvla_ros", "other")
    monkeypatch.setenv("AMENT_PREFIX_PATH", f"{tmp_path / 'missing'}:{tmp_path}")
    assert engine_directory(name) == bundle


def test_a_name_is_found_under_the_prefix_of_the_install(tmp_path: Path) -> None:
    site_packages = installed_copy(tmp_path)
    bundle = make_bundle(tmp_path / "share" / "lightvla_ros", "mini")
    assert found_by(site_packages, "mini", tmp_path) == str(bundle)


def test_a_path_is_never_taken_for_a_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    make_bundle(tmp_path / "share" / "lightvla_ros", "mini")
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path))
    with pytest.raises(BundleError):
        engine_directory("somewhere/else/mini")


def test_a_missing_bundle_is_refused_with_every_place_looked_at(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    share = tmp_path / "share" / "lightvla_ros"
    make_bundle(share, "other")
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path))
    with pytest.raises(BundleError) as refusal:
        engine_directory("nothing")
    assert str(share / "engines" / "nothing") in str(refusal.value)
    assert str(REPOSITORY / "engines" / "nothing") in str(refusal.value)


def test_a_place_that_was_looked_at_twice_is_named_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPOSITORY)
    with pytest.raises(BundleError) as caught:
        engine_directory("engines/nowhere")
    assert str(caught.value).count(str(REPOSITORY / "engines" / "nowhere")) == 1
