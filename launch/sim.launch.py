"""The simulated robot alone: cameras, state and command topics of the tabletop or of a LIBERO suite."""

import os
from pathlib import Path

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from lightvla_ros.core.dds import profile_environment

DDS_PROFILE = Path(__file__).parent.parent / "config" / "fastdds.xml"
# launch argument -> its default, what it is, and the type the node expects
ARGUMENTS = {
    "world": ("tabletop", "tabletop, or a suite of LIBERO such as libero_object", str),
    "render": ("exact", "how LIBERO is drawn: exact or fast", str),
    "lockstep": ("0", "steps per chunk of a world that waits for the policy; 0: real time", int),
    "max_steps": ("0", "steps after which the world waits for a reset; 0: never", int),
    "image_size": ("256", "width and height of both cameras, pixels", int),
    "real_time_factor": ("1.0", "simulated seconds per second", float),
    "publish_clock": ("false", "publish /clock and stamp with simulated time", bool),
    "command_timeout_s": ("0.2", "a twist older than this no longer moves the arm", float),
    "seed": ("0", "seed of the first episode", int),
    "instruction": ("", "instruction of the first episode; empty: the world chooses", str),
}


def make_node(context: LaunchContext) -> list[Node]:
    """Make the node with its parameters as the launch arguments say."""
    parameters = {
        name: ParameterValue(LaunchConfiguration(name), value_type=kind)
        for name, (_, _, kind) in ARGUMENTS.items()
    }
    return [
        Node(
            package="lightvla_ros",
            executable="sim_node",
            name="lightvla_sim",
            parameters=[parameters],
            additional_env=profile_environment(
                LaunchConfiguration("dds_profile").perform(context), os.environ
            ),
            output="screen",
        )
    ]


def generate_launch_description() -> LaunchDescription:
    """Declare the node's parameters as launch arguments and start it."""
    return LaunchDescription(
        [
            *(
                DeclareLaunchArgument(name, default_value=default, description=text)
                for name, (default, text, _) in ARGUMENTS.items()
            ),
            DeclareLaunchArgument(
                "dds_profile",
                default_value=str(DDS_PROFILE),
                description="Fast DDS profile of the node; none for Fast DDS's defaults",
            ),
            OpaqueFunction(function=make_node),
        ]
    )
