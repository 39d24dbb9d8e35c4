"""What the demo's observer says of a world that does not do as it is told."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import rclpy
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from std_srvs.srv import Trigger

from lightvla_ros.core.errors import LightVlaError
from lightvla_ros.nodes.demo_monitor import DemoMonitor
from lightvla_ros.nodes.sim_node import SIM_NODE_NAME


@pytest.fixture
def monitor() -> Iterator[DemoMonitor]:
    rclpy.init(args=[])
    monitor = DemoMonitor(None)
    yield monitor
    monitor.close()
    rclpy.shutdown()


@pytest.fixture
def world() -> Iterator[None]:
    """A world that takes no parameters and says that it was reset."""
    context = Context()
    rclpy.init(args=[], context=context)
    node = rclpy.create_node(SIM_NODE_NAME, context=context, start_parameter_services=False)

    def reset(_: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success, response.message = True, "{}"
        return response

    node.create_service(Trigger, "~/reset", reset)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    thread = threading.Thread(target=_spin, args=(executor,), daemon=True)
    thread.start()
    yield
    rclpy.shutdown(context=context)
    thread.join(5.0)
    node.destroy_node()


def _spin(executor: SingleThreadedExecutor) -> None:
    try:
        executor.spin()
    except ExternalShutdownException:
        pass


def test_a_world_that_takes_no_task_is_told_as_such_though_it_resets(
    monitor: DemoMonitor, world: None
) -> None:
    message = "the world did not take the task; got no answer; expected an answer of lightvla_sim within 2 s"
    with pytest.raises(LightVlaError, match=message):
        monitor.start_episode("go", 0, timeout_s=2.0)
