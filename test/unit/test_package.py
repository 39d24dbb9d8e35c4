"""What pip, colcon and `ros2 run` see of the package, read from its files."""

from __future__ import annotations

import ast
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import setuptools

from lightvla_ros import __version__

REPOSITORY = Path(__file__).parents[2]
SCRIPTS = ("lightvla", "policy_node", "rqt_lightvla", "sim_node")
# Folders of ROS packages that colcon users need; pip users get the same from the extra `ros`.
MESSAGE_PACKAGES = re.compile(r"^(\w+_(?:msgs|srvs|interfaces)|rclpy)\b")


@pytest.fixture
def setup_arguments(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The keyword arguments that setup.py gives to setuptools."""
    given: dict[str, Any] = {}
    monkeypatch.setattr(setuptools, "setup", given.update)
    monkeypatch.chdir(REPOSITORY)
    runpy.run_path(str(REPOSITORY / "setup.py"))
    return given


@pytest.fixture
def manifest() -> ElementTree.Element:
    """package.xml."""
    return ElementTree.parse(REPOSITORY / "package.xml").getroot()


def text_of(manifest: ElementTree.Element, tag: str) -> str:
    return manifest.findtext(tag, default="").strip()


def imported_packages(folder: Path) -> set[str]:
    """Top-level names that the modules of a folder import, wherever in the file."""
    names: set[str] = set()
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names.update(alias.name.partition(".")[0] for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.add(node.module.partition(".")[0])
    return names


def test_package_xml_and_setup_py_say_the_same(
    manifest: ElementTree.Element, setup_arguments: dict[str, Any]
) -> None:
    assert manifest.get("format") == "3"
    assert text_of(manifest, "export/build_type") == "ament_python"
    for tag in ("name", "license"):
        assert text_of(manifest, tag) == setup_arguments[tag]
    for tag, argument in (("maintainer", "maintainer"), ("author", "author")):
        assert text_of(manifest, tag) == setup_arguments[argument]
    maintainer = manifest.find("maintainer")
    assert maintainer is not None
    assert maintainer.get("email") == setup_arguments["maintainer_email"]


def test_the_version_is_the_same_everywhere(
    manifest: ElementTree.Element, setup_arguments: dict[str, Any]
) -> None:
    changelog = (REPOSITORY / "CHANGELOG.rst").read_text(encoding="utf-8")
    newest = re.search(r"^(\d+\.\d+\.\d+)\b", changelog, re.MULTILINE)
    assert newest is not None
    assert {__version__, text_of(manifest, "version"), setup_arguments["version"], newest[1]} == {"0.1.0"}


def test_every_ros_package_we_import_is_a_dependency_of_package_xml(manifest: ElementTree.Element) -> None:
    declared = {element.text for element in manifest.iter("exec_depend")}
    imported = {
        name for name in imported_packages(REPOSITORY / "lightvla_ros") if MESSAGE_PACKAGES.match(name)
    }
    assert "rclpy" in imported
    assert imported <= declared


def test_every_message_package_we_import_comes_with_the_ros_extra_or_rclpy(
    setup_arguments: dict[str, Any],
) -> None:
    with_rclpy = {"builtin_interfaces", "rcl_interfaces"}
    extra = {re.split(r"[\[>=<]", line)[0] for line in setup_arguments["extras_require"]["ros"]}
    imported = {
        name for name in imported_packages(REPOSITORY / "lightvla_ros") if MESSAGE_PACKAGES.match(name)
    }
    assert {f"ros-{name.replace('_', '-')}" for name in imported - with_rclpy} <= extra


def test_the_run_time_requires_neither_torch_nor_tensorrt(setup_arguments: dict[str, Any]) -> None:
    required = " ".join(
        [
            *setup_arguments["install_requires"],
            *setup_arguments["extras_require"]["ros"],
            *setup_arguments["extras_require"]["sim"],
        ]
    )
    assert "onnxruntime" in required
    assert not re.search(r"torch|tensorrt|transformers", required)


def test_data_files_are_complete_and_exist(setup_arguments: dict[str, Any]) -> None:
    files = {
        f"{folder}/{Path(path).name}": REPOSITORY / path
        for folder, paths in setup_arguments["data_files"]
        for path in paths
    }
    assert all(path.is_file() for path in files.values())
    expected = {
        "share/ament_index/resource_index/packages/lightvla_ros",
        "share/lightvla_ros/package.xml",
        "share/lightvla_ros/plugin.xml",
        "share/lightvla_ros/config/policy.yaml",
        "share/lightvla_ros/config/controllers/moveit_servo.yaml",
        "share/lightvla_ros/launch/policy.launch.py",
        "share/lightvla_ros/engines/mini/manifest.json",
    }
    assert expected <= set(files)
    assert not any(name.endswith((".plan", ".engine", ".cache", ".pyc")) for name in files)


def test_entry_points_are_functions_of_their_modules(setup_arguments: dict[str, Any]) -> None:
    entry_points = setup_arguments["entry_points"]["console_scripts"]
    assert {line.split(" = ")[0] for line in entry_points} == set(SCRIPTS)
    for line in entry_points:
        module, function = line.split(" = ")[1].split(":")
        path = REPOSITORY / f"{module.replace('.', '/')}.py"
        body = ast.parse(path.read_text(encoding="utf-8")).body
        assert function in {node.name for node in body if isinstance(node, ast.FunctionDef)}, line


@pytest.mark.parametrize("name", SCRIPTS)
def test_ros2_run_reaches_the_script_of_the_same_name(
    name: str, setup_arguments: dict[str, Any], tmp_path: Path
) -> None:
    installed = {folder: paths for folder, paths in setup_arguments["data_files"]}["lib/lightvla_ros"]
    source = REPOSITORY / next(path for path in installed if Path(path).name == name)
    wrapper = tmp_path / "lib" / "lightvla_ros" / name
    script = tmp_path / "bin" / name
    for path, content in ((wrapper, source.read_text()), (script, '#!/bin/sh\necho "$0:$1"; exit 3\n')):
        path.parent.mkdir(parents=True)
        path.write_text(content)
        path.chmod(0o755)
    assert source.stat().st_mode & 0o111
    result = subprocess.run([str(wrapper), "two words"], capture_output=True, text=True, check=False)
    assert result.returncode == 3
    assert result.stdout.strip().endswith(f"bin/{name}:two words")


def test_the_package_is_typed(setup_arguments: dict[str, Any]) -> None:
    assert setup_arguments["package_data"] == {"lightvla_ros": ["py.typed"]}
    assert (REPOSITORY / "lightvla_ros" / "py.typed").is_file()


def test_python_versions_are_those_supported(setup_arguments: dict[str, Any]) -> None:
    assert setup_arguments["python_requires"] == ">=3.10,<3.14"
    assert sys.version_info[:2] >= (3, 10)
