"""What `ros2 run` starts: signals are heard before the slow imports, where they would end in a traceback."""

from __future__ import annotations

from lightvla_ros.nodes.stop_signals import stop_on_signals


def policy_node() -> int:
    """Run the policy node."""
    stop_on_signals()
    from lightvla_ros.nodes.policy_node import main

    return main()


def sim_node() -> int:
    """Run the simulated robot."""
    stop_on_signals()
    from lightvla_ros.nodes.sim_node import main

    return main()
