"""The sim's launch files against the nodes' parameters, read as text: `launch` need not be installed."""

from __future__ import annotations

import ast
from pathlib import Path

from lightvla_ros.nodes.sim_node import SIM_NODE_NAME
from lightvla_ros.nodes.sim_parameters import PARAMETERS

LAUNCH = Path(__file__).parents[2] / "launch"


def _table(file: str, name: str) -> dict[str, list[str]]:
    """A dictionary of tuples assigned at module level: key -> source text of each item."""
    for node in ast.parse((LAUNCH / file).read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            content = ast.literal_eval(ast.unparse(_without_names(node.value)))
            return {key: [str(item) for item in values] for key, values in content.items()}
    raise AssertionError(f"{file} has no table {name}")


def _without_names(tree: ast.expr) -> ast.expr:
    class NamesToText(ast.NodeTransformer):
        def visit_Name(self, node: ast.Name) -> ast.Constant:
            return ast.Constant(node.id)

    return NamesToText().visit(tree)


def test_the_sims_launch_arguments_are_its_parameters_with_their_defaults_and_types() -> None:
    arguments = _table("sim.launch.py", "ARGUMENTS")
    assert {name: (values[0], values[2]) for name, values in arguments.items()} == {
        name: (str(default).lower() if isinstance(default, bool) else str(default), type(default).__name__)
        for name, (default, _) in PARAMETERS.items()
    }


def test_the_sim_is_started_under_the_name_the_demo_calls() -> None:
    source = (LAUNCH / "sim.launch.py").read_text()
    assert f'name="{SIM_NODE_NAME}"' in source
    assert 'executable="sim_node"' in source


def test_the_demo_hands_on_only_arguments_the_policys_launch_file_declares() -> None:
    declared = _table("policy.launch.py", "PARAMETERS")
    assert {*_table("demo.launch.py", "POLICY_ARGUMENTS"), "enable_actuation"} <= set(declared)


def test_the_sim_gets_the_dds_profile_that_is_there() -> None:
    source = (LAUNCH / "sim.launch.py").read_text()
    assert 'DDS_PROFILE = Path(__file__).parent.parent / "config" / "fastdds.xml"' in source
    assert (LAUNCH.parent / "config" / "fastdds.xml").is_file()
