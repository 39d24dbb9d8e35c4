"""The node `tabletop_sim`: a simulated world in real time on the robot's topics."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import rclpy
from geometry_msgs.msg import TwistStamped
from rcl_interfaces.msg import SetParametersResult
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.time import Time
from rosgraph_msgs.msg import Clock
from std_msgs.msg import Float64, String
from std_srvs.srv import Trigger

from lightvla_ros.core.errors import LightVlaError, SpecError
from lightvla_ros.nodes.sim_parameters import declare_parameters
from lightvla_ros.nodes.world_publisher import WorldPublisher
from lightvla_ros.sim.twist_command import TwistCommand
from lightvla_ros.sim.world import World, WorldState

SIM_NODE_NAME = "tabletop_sim"
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
RESET_TIMEOUT_S = 10.0


@dataclass(slots=True)
class _Episode:
    """What `~/status` tells; `success` stays true once the goal was reached."""

    episode: int = 0
    seed: int = 0
    instruction: str = ""
    success: bool = False
    step: int = 0
    overruns: int = 0
    errors: int = 0


@dataclass(slots=True)
class _ResetRequest:
    """A reset asked for by a service call and done by the world's thread."""

    done: threading.Event = field(default_factory=threading.Event)
    error: str = ""


def next_deadline(deadline_ns: int, period_ns: int, now_ns: int) -> tuple[int, int]:
    """Return the deadline after `deadline_ns` and how many periods were lost on the way.

    Deadlines stay on one grid, so lateness neither drifts nor is caught up in a burst.
    """
    following = deadline_ns + period_ns
    lost = max(0, -(-(now_ns - following) // period_ns))
    return following + lost * period_ns, lost


class SimNode(Node):
    """A world behind ROS topics; the world lives in the thread that made this node and calls `run`.

    Rendering contexts belong to one thread, so callbacks (another thread) only leave messages in
    mailboxes and `run` picks them up between steps.

    Args:
        make_world: builds the world from the image size in pixels.
        context: of ROS; the default one when None.
    """

    def __init__(self, make_world: Callable[[int], World], *, context: Context | None = None) -> None:
        super().__init__(SIM_NODE_NAME, context=context)
        declare_parameters(self)
        self.world = make_world(self._value("image_size"))
        self._command = TwistCommand(
            control_period_s=self.world.control_period_s, timeout_s=self._value("command_timeout_s")
        )
        self._episode = _Episode()
        self._heard_instruction: str | None = None
        self._goal_wanted: str | None = None
        self._reset_wanted: _ResetRequest | None = None
        self._is_failing = False
        self._sim_time_ns = 0

        self._world_publisher = WorldPublisher(self, joint_names=self.world.joint_names)
        self._status_publisher = self.create_publisher(String, "~/status", LATCHED)
        self._clock_publisher = (
            self.create_publisher(Clock, "/clock", 1) if self._value("publish_clock") else None
        )
        self.create_subscription(TwistStamped, "policy/command", self._on_twist, 1)
        self.create_subscription(Float64, "policy/gripper", self._on_gripper, 10)
        self.create_subscription(String, "instruction", self._on_instruction, LATCHED)
        self.create_service(Trigger, "~/reset", self._on_reset)
        self.add_on_set_parameters_callback(self._check_parameters)

    def run(self) -> None:
        """Step the world at its control rate until ROS shuts down."""
        period_ns = round(self.world.control_period_s * 1e9 / self._value("real_time_factor"))
        self._reset_world()
        deadline_ns = time.monotonic_ns()
        while self.context.ok():
            deadline_ns, lost = next_deadline(deadline_ns, period_ns, time.monotonic_ns())
            self._episode.overruns += lost
            time.sleep(max(0, deadline_ns - time.monotonic_ns()) / 1e9)
            self._tick()

    def _tick(self) -> None:
        """One control step; whatever fails in the world is reported and the node lives on."""
        try:
            request, self._reset_wanted = self._reset_wanted, None
            if request is not None:
                self._serve_reset(request)
            self._follow_instruction()
            state = self.world.step(self._command.action(time.monotonic_ns()))
            self._publish(state)
            self._is_failing = False
        except Exception as error:  # noqa: BLE001 - a simulation at fault must not take the graph down
            if not self.context.ok():
                return
            self._episode.errors += 1
            if not self._is_failing:
                self.get_logger().error(
                    f"the world failed to step; nothing moves: {error!r}. Fix: call ~/reset"
                )
            self._is_failing = True

    def _publish(self, state: WorldState) -> None:
        self._episode.step += 1
        self._episode.success = self._episode.success or self.world.is_success()
        self._sim_time_ns += round(self.world.control_period_s * 1e9)
        stamp = self.get_clock().now()
        if self._clock_publisher is not None:
            stamp = Time(nanoseconds=self._sim_time_ns)
            self._clock_publisher.publish(Clock(clock=stamp.to_msg()))
        self._world_publisher.publish(state, stamp.to_msg())
        self._status_publisher.publish(String(data=self._status_json()))

    def _status_json(self) -> str:
        return json.dumps({**asdict(self._episode), "instructions": self.world.instructions()})

    def _serve_reset(self, request: _ResetRequest) -> None:
        try:
            self._reset_world()
        except Exception as error:  # noqa: BLE001 - told to whoever asked for the reset
            request.error = repr(error)
        finally:
            request.done.set()

    def _reset_world(self) -> None:
        seed = self._value("seed")
        self.world.reset(instruction=self._value("instruction") or self._heard_instruction, seed=seed)
        self._command.reset()
        self._goal_wanted = None
        self._episode = _Episode(
            episode=self._episode.episode + 1,
            seed=seed,
            instruction=self.world.instruction,
            overruns=self._episode.overruns,
            errors=self._episode.errors,
        )
        self.set_parameters([Parameter("seed", value=seed + 1)])
        self.get_logger().info(f"episode {self._episode.episode}, seed {seed}: {self.world.instruction!r}")

    def _follow_instruction(self) -> None:
        goal, self._goal_wanted = self._goal_wanted, None
        if goal is None or goal == self.world.instruction:
            return
        try:
            self.world.set_goal(goal)
        except LightVlaError as error:
            self.get_logger().warning(f"the success test keeps {self.world.instruction!r}: {error}")
            return
        self._heard_instruction = self._episode.instruction = self.world.instruction
        self._episode.success = False

    def _on_twist(self, message: TwistStamped) -> None:
        linear, angular = message.twist.linear, message.twist.angular
        try:
            self._command.set_twist(
                (linear.x, linear.y, linear.z), (angular.x, angular.y, angular.z), time.monotonic_ns()
            )
        except SpecError as error:
            self.get_logger().error(f"/policy/command refused: {error}", throttle_duration_sec=1.0)

    def _on_gripper(self, message: Float64) -> None:
        try:
            self._command.set_gripper(message.data)
        except SpecError as error:
            self.get_logger().error(f"/policy/gripper refused: {error}", throttle_duration_sec=1.0)

    def _on_instruction(self, message: String) -> None:
        if message.data.strip():
            self._goal_wanted = message.data

    def _on_reset(self, _request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        request = self._reset_wanted = _ResetRequest()
        if not request.done.wait(RESET_TIMEOUT_S):
            request.error = f"the world did not reset within {RESET_TIMEOUT_S:g} s"
        response.success = not request.error
        response.message = request.error or self._status_json()
        return response

    def _check_parameters(self, parameters: list[Parameter[Any]]) -> SetParametersResult:
        for parameter in parameters:
            if parameter.name == "instruction" and parameter.value:
                known = self.world.instructions()
                if parameter.value.strip().lower() not in map(str.lower, known):
                    reason = f"instruction is {parameter.value!r}, expected one of {list(known)}"
                    return SetParametersResult(successful=False, reason=reason)
        return SetParametersResult(successful=True)

    def _value(self, name: str) -> Any:
        return self.get_parameter(name).value


def make_tabletop(image_size: int) -> World:
    """Build the tabletop world with both cameras at `image_size` pixels."""
    from lightvla_ros.sim.tabletop import Tabletop

    return Tabletop(image_size=image_size)


def main(args: list[str] | None = None) -> None:
    """Run the node until it is interrupted."""
    rclpy.init(args=args)
    try:
        node = SimNode(make_tabletop)
    except LightVlaError as error:
        sys.exit(f"sim_node: {error}")
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    callbacks = threading.Thread(target=_spin, args=(executor,), name="callbacks", daemon=True)
    callbacks.start()
    try:
        node.run()
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        rclpy.try_shutdown()
        callbacks.join(timeout=2.0)
        node.world.close()


def _spin(executor: SingleThreadedExecutor) -> None:
    try:
        executor.spin()
    except (KeyboardInterrupt, ExternalShutdownException):
        pass


if __name__ == "__main__":
    main()
