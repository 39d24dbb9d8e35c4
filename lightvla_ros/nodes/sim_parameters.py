"""Parameters of the sim node, each with what it means and may be."""

from __future__ import annotations

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.node import Node

from lightvla_ros.sim.worlds import RENDERS, WORLDS


def _between(lowest: float, highest: float) -> list[FloatingPointRange]:
    return [FloatingPointRange(from_value=lowest, to_value=highest)]


# name -> default, and what the node tells about the parameter
PARAMETERS: dict[str, tuple[object, ParameterDescriptor]] = {
    "world": (
        "tabletop",
        ParameterDescriptor(
            description="the simulated world",
            additional_constraints=f"one of {', '.join(WORLDS)}; all but the first need LIBERO",
            read_only=True,
        ),
    ),
    "render": (
        "exact",
        ParameterDescriptor(
            description="how LIBERO is drawn: exact as in its training data, fast with simplified meshes",
            additional_constraints=f"one of {', '.join(RENDERS)}",
            read_only=True,
        ),
    ),
    "lockstep": (
        0,
        ParameterDescriptor(
            description="steps of each action chunk taken in lockstep with the policy, which then must use "
            "simulated time; 0: real time, by policy/command",
            read_only=True,
            integer_range=[IntegerRange(from_value=0, to_value=1000)],
        ),
    ),
    "max_steps": (
        0,
        ParameterDescriptor(
            description="control steps after which the world stands still until it is reset; 0: never",
            read_only=True,
            integer_range=[IntegerRange(from_value=0, to_value=2**31 - 1)],
        ),
    ),
    "image_size": (
        256,
        ParameterDescriptor(
            description="width and height of both cameras, pixels",
            read_only=True,
            integer_range=[IntegerRange(from_value=32, to_value=2048)],
        ),
    ),
    "real_time_factor": (
        1.0,
        ParameterDescriptor(
            description="simulated seconds per second",
            read_only=True,
            floating_point_range=_between(0.01, 100.0),
        ),
    ),
    "publish_clock": (
        False,
        ParameterDescriptor(description="publish /clock and stamp with simulated time", read_only=True),
    ),
    "command_timeout_s": (
        0.2,
        ParameterDescriptor(
            description="a twist older than this, seconds of wall time, no longer moves the arm",
            read_only=True,
            floating_point_range=_between(0.0, 10.0),
        ),
    ),
    "seed": (
        0,
        ParameterDescriptor(
            description="seed of the next episode; every reset counts it up",
            integer_range=[IntegerRange(from_value=0, to_value=2**31 - 1)],
        ),
    ),
    "instruction": (
        "",
        ParameterDescriptor(
            description="instruction of the next episode; empty: the one last heard, else the world's choice"
        ),
    ),
}


def declare_parameters(node: Node) -> None:
    """Declare every parameter; rcl refuses values out of range and changes of read-only ones."""
    for name, (default, descriptor) in PARAMETERS.items():
        node.declare_parameter(name, default, descriptor)
