"""`ros2 run lightvla_ros rqt_lightvla`: rqt with nothing but the panel."""

from __future__ import annotations

import sys


def main() -> None:
    """Run until the window is closed.

    Raises:
        SystemExit: rqt's exit code; 1 with a message where there is no rqt.
    """
    try:
        from rqt_gui.main import Main
    except ImportError as error:
        sys.exit(
            f"rqt_lightvla: error: {error}; expected rqt. "
            "Fix: apt install ros-$ROS_DISTRO-rqt-gui-py, or see the same panel with `lightvla view`"
        )
    sys.exit(Main().main(sys.argv, standalone="lightvla_ros.nodes.rqt_panel.PolicyPanel"))
