"""The managed lifecycle node `lightvla_policy`: two cameras and an instruction in, action chunks out."""

from __future__ import annotations

import functools
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import rclpy
from rclpy.clock import Clock, ClockType  # type: ignore[attr-defined]  # Humble has it nowhere else
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.signals import SignalHandlerOptions
from std_srvs.srv import SetBool, Trigger

from lightvla_ros.core.config import NodeConfig
from lightvla_ros.core.errors import LightVlaError
from lightvla_ros.core.policy import Policy
from lightvla_ros.core.realtime import lift_process, shorten_slice
from lightvla_ros.nodes.diagnostics import Diagnostics, idle_status
from lightvla_ros.nodes.entities import Entities
from lightvla_ros.nodes.parameters import NodeParameters
from lightvla_ros.nodes.session import PolicySession
from lightvla_ros.nodes.stop_signals import ignore_signals, stop_on_signals

_WATCH_PERIOD_S = 0.2
_DIAGNOSTICS_PERIOD_S = 1.0
_SPIN_TIMEOUT_S = 0.2

_Transition = Callable[["PolicyNode", LifecycleState], TransitionCallbackReturn]


def load_configured_policy(config: NodeConfig) -> Policy:
    """Load the policy that the parameters name, in this process or in one of its own."""
    from lightvla_ros.app import load_policy, load_prompt_encoder
    from lightvla_ros.worker.remote_policy import RemotePolicy
    from lightvla_ros.worker.restarts import RestartBudget

    statistics_key = config.statistics_key or None
    options: dict[str, Any] = {
        "path": config.engine,
        "backend": config.backend,
        "num_threads": config.num_threads or None,
        "statistics_key": statistics_key,
        "device": config.device,
        "allow_unverified": config.allow_unverified,
        "pruning": config.pruning,
    }
    if not config.worker.separate_process:
        return load_policy(**options)
    return RemotePolicy(
        options,
        check_instruction=load_prompt_encoder(config.engine, statistics_key=statistics_key).encode,
        timeout_s=config.worker.timeout_s,
        restarts=RestartBudget(max_restarts=config.worker.max_restarts),
    )


def _logged(transition: _Transition) -> _Transition:
    """Log what a transition raises (rclpy does not) and refuse the transition."""

    @functools.wraps(transition)
    def run(self: PolicyNode, state: LifecycleState) -> TransitionCallbackReturn:
        try:
            return transition(self, state)
        except Exception as error:  # noqa: BLE001  # the node stays up, whatever a backend raises
            return self.refuse(transition.__name__, error)

    return run


class PolicyNode(LifecycleNode):
    """The policy node; nothing moves until it is active, enabled and instructed.

    Args:
        make_policy: loads the policy at configure.
        node_arguments: passed on to the ROS node.
    """

    def __init__(
        self,
        *,
        make_policy: Callable[[NodeConfig], Policy] = load_configured_policy,
        **node_arguments: Any,
    ) -> None:
        super().__init__(
            "lightvla_policy", automatically_declare_parameters_from_overrides=True, **node_arguments
        )
        self._make_policy = make_policy
        self.session: PolicySession | None = None
        self.refusal = ""
        self._parameters_of_node = NodeParameters(self, on_change=self._apply)
        self._diagnostics = Diagnostics(self)
        # By the computer's clock: why nothing moves must also be told when ROS time stands still.
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(_DIAGNOSTICS_PERIOD_S, self._guarded(self._publish_diagnostics), clock=steady)
        self.create_timer(_WATCH_PERIOD_S, self._guarded(self._watch), clock=steady)
        self.create_service(SetBool, "~/enable", self._on_enable)
        self.create_service(Trigger, "~/reset", self._on_reset)

    @property
    def config(self) -> NodeConfig:
        """The configuration as far as it is valid."""
        return self._parameters_of_node.config

    @_logged
    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Read the parameters, load the policy, warm it up and subscribe."""
        config = self._parameters_of_node.read()
        policy, entities = self._make_policy(config), Entities(self)
        try:
            self.session = PolicySession(self, entities, config=config, policy=policy)
        except Exception:
            entities.destroy()
            policy.close()
            raise
        self.refusal = ""
        return TransitionCallbackReturn.SUCCESS

    @_logged
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Start from a clean slate."""
        if self.session is not None:
            self.session.activate()
        return TransitionCallbackReturn.SUCCESS

    @_logged
    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop and hold."""
        if self.session is not None:
            self.session.deactivate()
        return TransitionCallbackReturn.SUCCESS

    @_logged
    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free the policy."""
        self.teardown()
        return TransitionCallbackReturn.SUCCESS

    @_logged
    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free the policy."""
        self.teardown()
        return TransitionCallbackReturn.SUCCESS

    @_logged
    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Free the policy; the node can be configured again."""
        self.teardown()
        return TransitionCallbackReturn.SUCCESS

    def refuse(self, transition: str, error: Exception) -> TransitionCallbackReturn:
        """Log why a transition failed and free what it left half built."""
        self.refusal = f"{transition} failed: {error}"
        known = isinstance(error, LightVlaError)
        self.get_logger().error(
            self.refusal if known else f"{transition} failed:\n{''.join(traceback.format_exception(error))}"
        )
        if transition == "on_configure":
            self.teardown()
            return TransitionCallbackReturn.FAILURE
        return TransitionCallbackReturn.ERROR

    def teardown(self) -> None:
        """Stop motion and free everything; harmless when there is nothing."""
        session, self.session = self.session, None
        if session is not None:
            session.close()

    def start_by_itself(self) -> None:
        """Configure and activate, as a lifecycle manager would; a refusal leaves the node up."""
        if self.trigger_configure() == TransitionCallbackReturn.SUCCESS:
            self.trigger_activate()

    def _apply(self, config: NodeConfig) -> None:
        if self.session is not None:
            self.session.apply(config)

    def _publish_diagnostics(self) -> None:
        if self.session is not None:
            status = self.session.status()
        else:
            status = idle_status(self.refusal or "not configured", is_error=bool(self.refusal))
        self._diagnostics.publish(status)

    def _watch(self) -> None:
        if self.session is not None:
            self.session.watch()

    def _on_enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        session = self.session
        if session is None or not session.loop.active:
            response.success = not request.data
            response.message = "the node is not active; activate it first"
        else:
            session.loop.enable(request.data)
            response.success = True
            response.message = "commands are enabled" if request.data else "commands are disabled"
            self.get_logger().info(response.message)
        return response

    def _on_reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        if self.session is None:
            response.message = "the node is not configured; there is nothing to reset"
            return response
        self.session.reset()
        response.success = True
        response.message = "faults, image sizes and schedule forgotten; the instruction stays in force"
        self.get_logger().info(response.message)
        return response

    def _guarded(self, callback: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            try:
                callback()
            except Exception as error:  # noqa: BLE001  # a callback's exception would end the executor
                if self.session is not None:
                    self.session.report(error)
                else:
                    self.get_logger().error(f"{callback.__name__}: {error}")

        return run


def main(
    args: Sequence[str] | None = None,
    *,
    make_policy: Callable[[NodeConfig], Policy] = load_configured_policy,
) -> int:
    """Run the node until SIGINT or SIGTERM; a robot in motion is told to stand still first."""
    stopping = stop_on_signals()
    # Our own handlers: rclpy's would close the context before the robot is told to stand still.
    rclpy.init(args=None if args is None else list(args), signal_handler_options=SignalHandlerOptions.NO)
    executor = SingleThreadedExecutor()
    node = PolicyNode(make_policy=make_policy)
    if node.config.worker.separate_process:
        shorten_slice()
    if node.config.realtime_priority > 1 and node.config.worker.separate_process:
        lift_process(node.config.realtime_priority - 1)  # the command thread itself goes one above
    try:
        executor.add_node(node)
        if node.config.auto_activate and not stopping.is_set():
            node.start_by_itself()
        while not stopping.is_set():
            executor.spin_once(timeout_sec=_SPIN_TIMEOUT_S)
    finally:
        ignore_signals()
        node.teardown()
        node.destroy_node()
        rclpy.shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
