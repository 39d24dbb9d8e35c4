"""The launch files against the package's facts, read as text: `launch` need not be installed."""

from __future__ import annotations

import ast
import re
import runpy
from pathlib import Path
from typing import Any

import pytest
import setuptools

from lightvla_ros.core.config import NodeConfig, parameters

ROOT = Path(__file__).parents[2]
TREE = ast.parse((ROOT / "launch" / "policy.launch.py").read_text())


def table(name: str) -> dict[str, Any]:
    """Read a dictionary assigned at module level; what is no literal becomes its source text."""
    for node in TREE.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            assert isinstance(node.value, ast.Dict)
            keys = [ast.literal_eval(key) for key in node.value.keys if key is not None]
            return dict(zip(keys, map(_value, node.value.values), strict=True))
    raise AssertionError(f"no table {name}")


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.Tuple):
        return tuple(_value(item) for item in node.elts)
    return node.value if isinstance(node, ast.Constant) else ast.unparse(node)


def keyword(name: str) -> Any:
    """Read a keyword argument of the node."""
    calls = [node for node in ast.walk(TREE) if isinstance(node, ast.Call)]
    (node,) = [call for call in calls if ast.unparse(call.func) == "LifecycleNode"]
    return next(_value(argument.value) for argument in node.keywords if argument.arg == name)


def function(name: str) -> Any:
    """Run a function that needs nothing of `launch` by itself."""
    (body,) = [node for node in TREE.body if isinstance(node, ast.FunctionDef) and node.name == name]
    names: dict[str, Any] = {"Path": Path, "CONTROLLERS": ROOT / "config" / "controllers"}
    exec(compile(ast.Module([body], []), "policy.launch.py", "exec"), names)
    return names[name]


def test_arguments_that_are_parameters_exist_with_the_type_the_node_expects() -> None:
    known = {name: type(value).__name__ for name, value, _ in parameters(NodeConfig())}
    known["use_sim_time"] = "bool"
    for name, (_, _, kind) in table("PARAMETERS").items():
        assert known[name] == kind


def test_the_robot_does_not_move_unless_asked_to() -> None:
    assert table("PARAMETERS")["enable_actuation"][0] == "false"


def test_descriptions_name_the_nodes_own_defaults() -> None:
    config = NodeConfig()
    for name, (default, text, _) in table("PARAMETERS").items():
        if not default:
            assert text.endswith(f"default {getattr(config, name)}")


def test_the_node_is_the_packages_executable_and_bears_its_own_name() -> None:
    assert (keyword("package"), keyword("executable")) == ("lightvla_ros", "policy_node")
    source = (ROOT / "lightvla_ros" / "nodes" / "policy_node.py").read_text()
    assert f'"{keyword("name")}"' in source


def test_camera_topics_are_those_the_node_subscribes_to() -> None:
    assert set(table("CAMERAS")) <= set(table("OTHERS"))
    for argument, topic in table("CAMERAS").items():
        camera = argument.removesuffix("_topic")
        assert topic == f"camera/{camera}/image" == table("OTHERS")[argument][0]


def test_command_topics_are_those_the_node_publishes() -> None:
    sources = "".join(
        (ROOT / "lightvla_ros" / "nodes" / f"{name}.py").read_text() for name in ("commands", "outputs")
    )
    for argument, topic in table("COMMANDS").items():
        assert table("OTHERS")[argument][0] == topic
        assert f'"{topic}"' in sources


def test_a_profile_overrides_the_parameter_file_and_arguments_override_both() -> None:
    files, profile, arguments = "params_file", "controller_profile", "overrides"
    given = keyword("parameters")
    assert given.index(files) < given.index(profile) < given.index(arguments)


def test_a_controller_is_a_profile_by_name_a_file_or_none(tmp_path: Path) -> None:
    profile = function("controller_profile")
    assert profile("") == []
    assert profile("jtc_chunk") == [str(ROOT / "config" / "controllers" / "jtc_chunk.yaml")]
    own = tmp_path / "own.yaml"
    own.touch()
    assert profile(str(own)) == [str(own)]
    with pytest.raises(
        FileNotFoundError, match=r"controller:=own; expected .*cartesian_pose, .*moveit_servo"
    ):
        profile("own")


def test_the_files_the_launch_file_names_are_where_it_looks() -> None:
    source = ast.unparse(TREE).replace("'", '"')
    assert 'CONFIG = Path(__file__).parent.parent / "config"' in source
    assert 'CONTROLLERS = CONFIG / "controllers"' in source
    for name in ("policy.yaml", "fastdds.xml"):
        assert f'CONFIG / "{name}"' in source
        assert (ROOT / "config" / name).is_file()


LAUNCH_FILES = sorted((ROOT / "launch").glob("*.launch.py"))


def calls(path: Path, *names: str) -> list[ast.Call]:
    """The calls of functions of these names in a file."""
    tree = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    return [node for node in tree if isinstance(node, ast.Call) and ast.unparse(node.func) in names]


def declared_arguments(path: Path) -> set[str]:
    """Names of a launch file's arguments: keys of its tables, and what it declares one by one."""
    tables = [
        node.value
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict)
    ]
    keys = [key for table in tables for key in table.keys]
    first = [call.args[0] for call in calls(path, "DeclareLaunchArgument") if call.args]
    return {str(node.value) for node in (*keys, *first) if isinstance(node, ast.Constant)}


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What setup.py gives to setuptools."""
    given: dict[str, Any] = {}
    monkeypatch.setattr(setuptools, "setup", given.update)
    monkeypatch.chdir(ROOT)
    runpy.run_path(str(ROOT / "setup.py"))
    return given


@pytest.mark.parametrize("path", LAUNCH_FILES, ids=lambda path: path.name)
def test_every_node_of_a_launch_file_is_an_executable_that_is_installed(
    path: Path, installed: dict[str, Any]
) -> None:
    scripts = {line.split(" = ")[0] for line in installed["entry_points"]["console_scripts"]}
    executables = {Path(file).name for file in dict(installed["data_files"])["lib/lightvla_ros"]}
    for node in calls(path, "Node", "LifecycleNode"):
        given = {argument.arg: _value(argument.value) for argument in node.keywords}
        assert given["package"] == "lightvla_ros"
        assert given["executable"] in scripts & executables
        assert (ROOT / "lightvla_ros" / "nodes" / f"{given['executable']}.py").is_file()


@pytest.mark.parametrize("path", LAUNCH_FILES, ids=lambda path: path.name)
def test_a_launch_file_is_installed_beside_the_files_it_includes(
    path: Path, installed: dict[str, Any]
) -> None:
    share = {Path(file).name for file in dict(installed["data_files"])["share/lightvla_ros/launch"]}
    sources = [ast.unparse(call.args[0]) for call in calls(path, "PythonLaunchDescriptionSource")]
    included = {name for source in sources for name in re.findall(r"'([^']+)'", source)}
    assert len(included) == len(sources)
    assert {path.name, *included} <= share


@pytest.mark.parametrize("path", LAUNCH_FILES, ids=lambda path: path.name)
def test_every_launch_argument_that_is_read_is_declared(path: Path) -> None:
    read = [call.args[0] for call in calls(path, "LaunchConfiguration")]
    names = {str(name.value) for name in read if isinstance(name, ast.Constant)}
    assert names <= declared_arguments(path)


def test_all_arguments_of_the_demos_files_can_be_told_apart() -> None:
    # Included files share one set of arguments: the same name must mean the same.
    policy, sim = (declared_arguments(ROOT / "launch" / f"{name}.launch.py") for name in ("policy", "sim"))
    assert policy & sim == {"dds_profile"}
