"""The node `lightvla_sim`: a simulated world on the robot's topics, in real time or in lockstep."""
# long: one world that lives in real time or in lockstep; the two ways share every field.

from __future__ import annotations

import contextlib
import json
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import rclpy
from geometry_msgs.msg import TwistStamped
from numpy.typing import NDArray
from rcl_interfaces.msg import SetParametersResult
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.signals import SignalHandlerOptions
from rclpy.time import Time
from rosgraph_msgs.msg import Clock
from std_msgs.msg import Float64, String
from std_srvs.srv import Trigger

from lightvla_ros.core.errors import LightVlaError, SpecError
from lightvla_ros.nodes.chunk_mailbox import ChunkMailbox, Repetition
from lightvla_ros.nodes.qos import LATCHED
from lightvla_ros.nodes.sim_parameters import declare_parameters
from lightvla_ros.nodes.stop_signals import ignore_signals, stop_on_signals
from lightvla_ros.nodes.world_publisher import WorldPublisher
from lightvla_ros.sim.twist_command import TwistCommand
from lightvla_ros.sim.world import World
from lightvla_ros.sim.worlds import WorldConfig

SIM_NODE_NAME = "lightvla_sim"
# LIBERO makes a new simulation for each task.
RESET_TIMEOUT_S = 60.0
# How long a world in lockstep waits for a chunk before it looks whether something else is to be done.
_LOOK_ROUND_S = 0.05
# When an observation that no chunk answers is published again. After a reset and an instruction, whoever is
# to answer may not have been listening yet; later it was lost on the way, or inference is that slow.
_SHOW_AGAIN_S, _SHOW_LOST_AGAIN_S = 0.2, 10.0
# What makes a world -> the parameter of that name.
_WORLD_PARAMETERS = {"name": "world", "image_size": "image_size", "render": "render"}


@dataclass(slots=True)
class _Episode:
    """What `~/status` tells; `success` stays true once the goal was reached, in step `success_step`."""

    episode: int = 0
    seed: int = 0
    instruction: str = ""
    success: bool = False
    success_step: int | None = None
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

    In real time the world goes on whatever the policy does, and obeys `policy/command`. In lockstep it
    stands still, its clock with it, until the chunk that answers its observation has come, and then takes
    the chunk's first `lockstep` steps.

    Args:
        make_world: builds the world.
        stopping: ends `run` when it is set.
        context: of ROS; the default one when None.

    Raises:
        LightVlaError: the world cannot be made.
    """

    def __init__(
        self,
        make_world: Callable[[WorldConfig], World] = WorldConfig.make,
        *,
        stopping: threading.Event | None = None,
        context: Context | None = None,
    ) -> None:
        super().__init__(SIM_NODE_NAME, context=context)
        declare_parameters(self)
        asked = {name: self._value(parameter) for name, parameter in _WORLD_PARAMETERS.items()}
        self.world = make_world(WorldConfig(**asked))
        self._lockstep = int(self._value("lockstep"))
        self._max_steps = int(self._value("max_steps"))
        self._command = TwistCommand(
            control_period_s=self.world.control_period_s, timeout_s=self._value("command_timeout_s")
        )
        self._episode = _Episode()
        self._heard_instruction: str | None = None
        self._goal_wanted: str | None = None
        self._reset_wanted: _ResetRequest | None = None
        self._stopping = stopping or threading.Event()
        self._is_failing = False
        self._sim_time_ns = 0

        self._world_publisher = WorldPublisher(self, joint_names=self.world.joint_names)
        self._status_publisher = self.create_publisher(String, "~/status", LATCHED)
        publishes_clock = self._value("publish_clock") or self._lockstep
        self._clock_publisher = self.create_publisher(Clock, "/clock", 1) if publishes_clock else None
        self._chunks = ChunkMailbox(self) if self._lockstep else None
        self._show = Repetition(self._show_anew)
        self._shown_ns: set[int] = set()
        self.create_subscription(TwistStamped, "policy/command", self._on_twist, 1)
        self.create_subscription(Float64, "policy/gripper", self._on_gripper, 10)
        # Latched only: `ros2 topic pub --once` speaks to whoever it finds first: that has to be the policy.
        self.create_subscription(String, "instruction", self._on_instruction, LATCHED)
        self.create_service(Trigger, "~/reset", self._on_reset)
        self.add_on_set_parameters_callback(self._check_parameters)

    def run(self) -> None:
        """Run the world until ROS shuts down or `stopping` is set."""
        self._reset_world()
        if self._lockstep:
            self._run_in_lockstep()
        else:
            self._run_in_real_time()

    def _run_in_real_time(self) -> None:
        period_ns = round(self.world.control_period_s * 1e9 / self._value("real_time_factor"))
        deadline_ns = time.monotonic_ns()
        while self._is_wanted:
            deadline_ns, lost = next_deadline(deadline_ns, period_ns, time.monotonic_ns())
            self._episode.overruns += lost
            time.sleep(max(0, deadline_ns - time.monotonic_ns()) / 1e9)
            self._tick(self._step_in_real_time)

    def _run_in_lockstep(self) -> None:
        while self._is_wanted:
            self._tick(self._step_in_lockstep)
            if self._is_failing:
                time.sleep(_LOOK_ROUND_S)

    @property
    def _is_wanted(self) -> bool:
        return self.context.ok() and not self._stopping.is_set()

    def _step_in_real_time(self) -> None:
        if not self._is_over:
            self._act(self._command.action(time.monotonic_ns()))
        self._publish()

    def _step_in_lockstep(self) -> None:
        assert self._chunks is not None
        if self._is_over:
            time.sleep(_LOOK_ROUND_S)
            return
        self._show.tick(time.monotonic())
        chunk = self._chunks.wait(self._shown_ns, _LOOK_ROUND_S)
        if chunk is None:
            return
        for action in chunk[: self._lockstep]:
            self._act(action)
            if self._is_over:
                break
        self._shown_ns.clear()
        self._show.restart(time.monotonic(), again_s=_SHOW_LOST_AGAIN_S)
        if self._is_over:
            self._publish_status()

    def _show_anew(self) -> None:
        # Nobody takes two images of the same stamp. The clock stays: were it a nanosecond later, the first
        # step of a chunk that answers an earlier image would be past.
        ahead_ns = len(self._shown_ns)
        self._shown_ns.add(self._sim_time_ns + ahead_ns)
        self._publish(ahead_ns)

    @property
    def _is_over(self) -> bool:
        """Whether the world waits for a reset: out of steps, or in lockstep also after a success."""
        episode = self._episode
        return 0 < self._max_steps <= episode.step or bool(self._lockstep and episode.success)

    def _act(self, action: NDArray[np.float64]) -> None:
        """Take one control step and judge it."""
        self.world.step(action)
        episode = self._episode
        episode.step += 1
        self._sim_time_ns += round(self.world.control_period_s * 1e9)
        if not episode.success and self.world.is_success():
            episode.success, episode.success_step = True, episode.step

    def _tick(self, step: Callable[[], None]) -> None:
        """Do what is asked, then step; whatever fails in the world is reported and the node lives on."""
        try:
            request, self._reset_wanted = self._reset_wanted, None
            if request is not None:
                self._serve_reset(request)
            self._follow_instruction()
            step()
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

    def _publish(self, ahead_ns: int = 0) -> None:
        """Publish the clock, then what is measured, stamped `ahead_ns` later, then the episode's status."""
        state = self.world.observe()
        stamp = self.get_clock().now()
        if self._clock_publisher is not None:
            self._clock_publisher.publish(Clock(clock=Time(nanoseconds=self._sim_time_ns).to_msg()))
            stamp = Time(nanoseconds=self._sim_time_ns + ahead_ns)
        self._world_publisher.publish(state, stamp.to_msg())
        self._publish_status()

    def _publish_status(self) -> None:
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
        # Two episodes' observations are a step apart too.
        self._sim_time_ns += round(self.world.control_period_s * 1e9)
        self._shown_ns.clear()
        self._show.restart(time.monotonic(), again_s=_SHOW_AGAIN_S)
        self.set_parameters([Parameter("seed", value=seed + 1)])
        self.get_logger().info(f"episode {self._episode.episode}, seed {seed}: {self.world.instruction!r}")

    def _follow_instruction(self) -> None:
        goal, self._goal_wanted = self._goal_wanted, None
        if goal is None:
            return
        self._show.restart(time.monotonic(), again_s=_SHOW_AGAIN_S)
        if goal == self.world.instruction:
            return
        if goal in self.world.instructions():
            self._heard_instruction = goal
        try:
            self.world.set_goal(goal)
        except LightVlaError as error:
            self.get_logger().warning(f"the success test keeps {self.world.instruction!r}: {error}")
            return
        self._heard_instruction = self._episode.instruction = self.world.instruction
        self._episode.success, self._episode.success_step = False, None

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


def main(args: list[str] | None = None) -> int:
    """Run the node until SIGINT or SIGTERM."""
    stopping = stop_on_signals()
    # Our own handlers: rclpy's would raise KeyboardInterrupt wherever this thread is.
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    try:
        node = SimNode(stopping=stopping)
    except LightVlaError as error:
        sys.exit(f"sim_node: {error}")
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    callbacks = threading.Thread(target=_spin, args=(executor,), name="callbacks", daemon=True)
    callbacks.start()
    try:
        node.run()
    finally:
        ignore_signals()
        rclpy.try_shutdown()
        callbacks.join(timeout=2.0)
        node.world.close()
    return 0


def _spin(executor: SingleThreadedExecutor) -> None:
    with contextlib.suppress(ExternalShutdownException):
        executor.spin()


if __name__ == "__main__":
    sys.exit(main())
