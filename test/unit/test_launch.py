"""The policy's launch file against the package's facts, read as text: `launch` need not be installed."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest

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
