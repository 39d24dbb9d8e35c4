"""The simulated robot and the policy that moves it; say what to do on /instruction."""

from pathlib import Path

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration

HERE = Path(__file__).parent
# Handed on to policy.launch.py under the same names.
POLICY_ARGUMENTS = {
    "engine": ("mini", "engine bundle, a name or a directory"),
    "backend": ("auto", "auto, onnxruntime or torch"),
}


def generate_launch_description() -> LaunchDescription:
    """Include both launch files; here, and only here, the arm may move from the start."""
    handed_on = {name: LaunchConfiguration(name) for name in POLICY_ARGUMENTS}
    return LaunchDescription(
        [
            *(
                DeclareLaunchArgument(name, default_value=default, description=text)
                for name, (default, text) in POLICY_ARGUMENTS.items()
            ),
            IncludeLaunchDescription(PythonLaunchDescriptionSource(str(HERE / "sim.launch.py"))),
            IncludeLaunchDescription(
                PythonLaunchDescriptionSource(str(HERE / "policy.launch.py")),
                launch_arguments={**handed_on, "enable_actuation": "true"}.items(),
            ),
        ]
    )
