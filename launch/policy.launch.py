"""The policy node, on the embedded policy when nothing else is said; it moves nothing unless told to."""

import os
from pathlib import Path

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode
from launch_ros.parameter_descriptions import ParameterValue

from lightvla_ros.core.dds import profile_environment

CONFIG = Path(__file__).parent.parent / "config"
PARAMS_FILE = CONFIG / "policy.yaml"
CONTROLLERS = CONFIG / "controllers"

# launch argument and parameter -> default (empty: as in params_file), what it is, type the node expects
PARAMETERS = {
    "engine": ("", "engine bundle or checkpoint, a directory or an installed name; default mini", str),
    "backend": ("", "auto, torch, onnxruntime or tensorrt; default auto", str),
    "chunk_rate_hz": ("", "rate of policy/action_chunk; default 20.0", float),
    "command_rate_hz": ("", "rate of policy/command; default 20.0", float),
    "enable_actuation": ("false", "whether the robot may move from the start", bool),
    "auto_activate": ("true", "configure and activate without a lifecycle manager", bool),
    "use_sim_time": ("false", "take the time from /clock", bool),
}
# launch argument -> default and what it is
OTHERS = {
    "params_file": (str(PARAMS_FILE), "YAML file with the node's parameters"),
    "controller": ("", "profile laid over params_file: a name in config/controllers or a YAML file"),
    "namespace": ("", "namespace of the node and its topics"),
    "third_person_topic": ("camera/third_person/image", "topic of the third-person camera"),
    "wrist_topic": ("camera/wrist/image", "topic of the wrist camera"),
    "command_topic": ("policy/command", "topic on which the controller listens"),
    "gripper_topic": ("policy/gripper", "topic on which the gripper listens"),
    "dds_profile": (
        str(CONFIG / "fastdds.xml"),
        "Fast DDS profile of the node; none for Fast DDS's defaults",
    ),
}
CAMERAS = {"third_person_topic": "camera/third_person/image", "wrist_topic": "camera/wrist/image"}
COMMANDS = {"command_topic": "policy/command", "gripper_topic": "policy/gripper"}


def make_node(context: LaunchContext) -> list[LifecycleNode]:
    """Make the node; arguments left empty do not override the parameter file."""
    overrides = {
        name: ParameterValue(LaunchConfiguration(name), value_type=kind)
        for name, (_, _, kind) in PARAMETERS.items()
        if LaunchConfiguration(name).perform(context)
    }
    remappings = [(topic, LaunchConfiguration(argument)) for argument, topic in COMMANDS.items()]
    for argument, topic in CAMERAS.items():
        chosen = LaunchConfiguration(argument)
        remappings += [(topic, chosen), (f"{topic}/compressed", [chosen, "/compressed"])]
    return [
        LifecycleNode(
            package="lightvla_ros",
            executable="policy_node",
            name="lightvla_policy",
            namespace=LaunchConfiguration("namespace"),
            parameters=[
                LaunchConfiguration("params_file"),
                *controller_profile(LaunchConfiguration("controller").perform(context)),
                overrides,
            ],
            remappings=remappings,
            additional_env=profile_environment(
                LaunchConfiguration("dds_profile").perform(context), os.environ
            ),
            output="screen",
        )
    ]


def controller_profile(chosen: str) -> list[str]:
    """Return the controller's parameter file in a list, empty when none is chosen."""
    if not chosen:
        return []
    path = CONTROLLERS / f"{chosen}.yaml"
    path = path if path.is_file() else Path(chosen)
    if not path.is_file():
        names = ", ".join(sorted(file.stem for file in CONTROLLERS.glob("*.yaml")))
        raise FileNotFoundError(f"controller:={chosen}; expected a YAML file or one of {names}")
    return [str(path)]


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments and start the node."""
    arguments = {name: (default, text) for name, (default, text, _) in PARAMETERS.items()} | OTHERS
    return LaunchDescription(
        [
            *(
                DeclareLaunchArgument(name, default_value=default, description=text)
                for name, (default, text) in arguments.items()
            ),
            OpaqueFunction(function=make_node),
        ]
    )
