"""What the node owns between configure and cleanup: policy, control loop, worker, publishers."""

from __future__ import annotations

import time
import traceback

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.node import Node

from lightvla_ros.core.config import NodeConfig
from lightvla_ros.core.control_loop import ControlLoop
from lightvla_ros.core.errors import LightVlaError, WorkerError
from lightvla_ros.core.frame_pairing import StampedObservation
from lightvla_ros.core.metrics import RateMeter
from lightvla_ros.core.observation import ActionChunk, Observation
from lightvla_ros.core.output import Command, Output
from lightvla_ros.core.pacing import FixedRateThread
from lightvla_ros.core.policy import Policy, warm_up
from lightvla_ros.core.policy_fit import check_fit
from lightvla_ros.core.sensor_inputs import STATE
from lightvla_ros.core.watchdog import StopReason
from lightvla_ros.core.worker import InferenceWorker
from lightvla_ros.nodes.commands import CommandOutput, make_command_output
from lightvla_ros.nodes.diagnostics import rates, running_status
from lightvla_ros.nodes.entities import Entities
from lightvla_ros.nodes.inference_outputs import InferenceOutputs
from lightvla_ros.nodes.inputs import Inputs
from lightvla_ros.nodes.outputs import ChunkOutput, GripperOutput
from lightvla_ros.nodes.topics import describe_publishers, rivals

_STOP_TIMEOUT_S = 10.0
_LOG_EVERY_S = 5.0
_EXPECTED_STOPS = ("no_instruction", "disabled", "waiting", "no_action")
# What comes with every chunk in mode sync is no news.
_UNTOLD_STOPS = ("awaiting_chunk",)


class PolicySession:
    """A loaded policy wired to topics.

    Args:
        node: gives clock, logger and graph.
        entities: owns publishers and subscriptions; destroyed with the session.
        config: the node's configuration.
        policy: the loaded policy; closed with the session.

    Raises:
        ConfigError: the configuration does not fit the policy.
        LightVlaError: the policy fails on a black image.
    """

    def __init__(self, node: Node, entities: Entities, *, config: NodeConfig, policy: Policy) -> None:
        check_fit(config, policy.spec)
        self._node = node
        self._entities = entities
        self._log = node.get_logger()
        self._config = config
        self._policy = policy
        self._spec = policy.spec
        self.loop = ControlLoop(config=config, spec=self._spec, check_instruction=policy.check_instruction)
        self._rates = {name: RateMeter() for name in ("inference", "action", "command", "chunk")}
        self._command = make_command_output(entities, config=config, spec=self._spec)
        self._gripper = GripperOutput(entities, config.gripper)
        self._chunk = ChunkOutput(entities, self._spec)
        self._pacers: list[FixedRateThread] = []
        self._last_step_ns = 0
        self._told: StopReason | None = None
        self._warm_up()
        self._worker = InferenceWorker(
            predict=policy.predict_chunk, on_chunk=self._on_chunk, on_error=self.report
        )
        self._inputs = Inputs(
            node,
            entities,
            config=config,
            spec=self._spec,
            loop=self.loop,
            submit=self._worker.submit,
            report=self.report,
        )
        self._seen = InferenceOutputs(
            entities,
            config=config,
            spec=self._spec,
            camera_topics=self._inputs.camera_topics,
            on_error=self._note_unseen,
        )
        self._worker.start()

    def activate(self) -> None:
        """Start publishing from a clean slate."""
        self.loop.start(self._now_ns())
        self._pacers = [
            FixedRateThread(
                name=name,
                rate_hz=rate_hz,
                tick=tick,
                on_error=self.report,
                priority=priority,
                on_unprivileged=self._log.warning,
            )
            for name, rate_hz, tick, priority in (
                ("command", self._config.command_rate_hz, self._command_tick, self._config.realtime_priority),
                ("chunk", self._config.chunk_rate_hz, self._chunk_tick, 0),
            )
        ]
        for pacer in self._pacers:
            pacer.start()

    def deactivate(self) -> None:
        """Stop publishing; a robot in motion is told to stand still first."""
        for pacer in self._pacers:
            pacer.stop()
        self._pacers = []
        self._worker.clear()
        self.loop.stop()
        self._command_tick()
        # A process that ends at once would take the last zero with it.
        if self._command is not None and not self._command.flush():
            self._log.warning("not every listener of policy/command has confirmed the last command")

    def close(self) -> None:
        """Stop everything and free the policy, also where the last command cannot be sent."""
        try:
            self.deactivate()
        finally:
            self._free()

    def reset(self) -> None:
        """Forget faults, image sizes and everything scheduled or in flight."""
        self._worker.clear()
        self.loop.reset(self._now_ns())

    def apply(self, config: NodeConfig) -> None:
        """Take over the parameters that may change while running."""
        self.loop.apply(config)
        if self._command is not None:
            self._command.limits = config.limits

    def watch(self) -> None:
        """Look at the graph and log why motion stopped or went on; called a few times per second."""
        self._inputs.watch()
        self._watch_policy()
        for camera, topic in self._inputs.camera_topics.items():
            self._expect_one(f"two_publishers:{camera}", topic, "frames of two cameras would be mixed")
        if self._command is not None:
            self._expect_one("two_commanders", self._command.topic, "two nodes would pull at one robot")
        for reason in self.loop.take_edges():
            self._log_edge(reason)

    def status(self) -> DiagnosticStatus:
        """Describe the session for /diagnostics."""
        reason = self.loop.stop_reason
        # Counted before the ticks are, so that no message tells of more commands than of ticks.
        counts = dict(sorted(self.loop.counts().items()))
        values = {
            "stop_message": self._explain(reason) if reason else "",
            "engine": self._spec.name,
            "backend": self._spec.backend,
            **rates(self._rates),
            "num_visual_tokens": self._spec.num_visual_tokens,
            **{f"image_topic_{name}": topic for name, topic in self._inputs.camera_topics.items()},
            "observations_replaced": self._worker.replaced,
            "pictures_dropped": self._seen.dropped,
            "inferences_failed": self._worker.failed,
            "worker_restarts": self._policy.health.restarts,
            **self._ticks(),
            **counts,
        }
        status = running_status(self.loop, values)
        status.hardware_id = self._spec.name
        return status

    def report(self, error: Exception) -> None:
        """Note an exception of any thread: motion stops, the log has it once in a while."""
        self.loop.fail(error)
        if isinstance(error, LightVlaError):
            text = str(error)
        else:
            text = "".join(traceback.format_exception(error))
        self._log.error(f"motion stops: {text}", throttle_duration_sec=_LOG_EVERY_S)

    def _free(self) -> None:
        has_stopped = self._worker.stop(_STOP_TIMEOUT_S)
        self._seen.close()
        self._entities.destroy()
        if has_stopped:
            self._policy.close()
        else:
            self._log.error("the policy is still busy and cannot be freed; restart the node")

    def _note_unseen(self, error: Exception) -> None:
        """Log what went wrong with a picture, which is no reason to stop the robot."""
        self._log.error(f"nothing shown of an inference: {error}", throttle_duration_sec=_LOG_EVERY_S)

    def _ticks(self) -> dict[str, object]:
        if not self._pacers:
            return {}
        command = self._pacers[0]
        return {
            "ticks": command.ticks,
            "ticks_missed": command.missed,
            "ticks_over_budget": command.over_budget,
        }

    def _warm_up(self) -> None:
        begun = time.monotonic()
        warm_up(self._policy)
        self._log.info(
            f"policy {self._spec.name!r} on {self._spec.backend}: cameras {list(self._spec.camera_names)}, "
            f"{self._spec.num_visual_tokens} visual tokens, {self._spec.chunk_size} steps of "
            f"{self._spec.step_period_ns / 1e6:g} ms; warmed up in {time.monotonic() - begun:.2f} s"
        )

    def _on_chunk(self, observation: Observation, chunk: ActionChunk) -> None:
        taken = self.loop.accept(chunk, self._now_ns())
        self._rates["inference"].mark(time.monotonic_ns())
        if isinstance(observation, StampedObservation):
            self._seen.submit(observation, chunk, taken=taken)

    def _command_tick(self) -> None:
        now_ns, monotonic_ns = self._now_ns(), time.monotonic_ns()
        command = self.loop.tick(now_ns, monotonic_ns)
        if self._command is None or command.output is Output.SILENT:
            return
        if command.output is Output.HOLD:
            self._command.hold(command, now_ns)
        else:
            self._move(self._command, command, now_ns, monotonic_ns)
        self._rates["command"].mark(monotonic_ns)

    def _move(self, output: CommandOutput, command: Command, now_ns: int, monotonic_ns: int) -> None:
        is_limited = output.move(command, now_ns) or command.is_limited
        self.loop.count("limited", is_limited)
        self.loop.published(command, self._now_ns())
        if command.step_ns != self._last_step_ns:
            self._last_step_ns = command.step_ns
            self._rates["action"].mark(monotonic_ns)
        if command.close_gripper is not None:
            self._gripper.publish(close=command.close_gripper)

    def _chunk_tick(self) -> None:
        steps = self.loop.remaining(self._now_ns())
        if steps is not None:
            self._chunk.publish(steps)
            self._rates["chunk"].mark(time.monotonic_ns())

    def _watch_policy(self) -> None:
        """Tell of an inference process that is gone also while nothing is asked of it."""
        problem = self._policy.health.problem
        is_restarting = isinstance(problem, WorkerError)
        if not is_restarting:
            self.loop.unblock("worker")
        if problem is not None:
            self.loop.block("worker" if is_restarting else "fault", str(problem))

    def _expect_one(self, code: str, topic: str, consequence: str) -> None:
        message = rivals(self._node, topic, consequence)
        if message is None:
            self.loop.unblock(code)
        else:
            self.loop.block(code, message)

    def _log_edge(self, reason: StopReason | None) -> None:
        if reason is not None and reason.code in _UNTOLD_STOPS:
            return
        before, self._told = self._told, reason
        if reason == before:
            return
        if reason is None:
            self._log.info("moving")
            return
        if reason.code.partition(":")[0] in _EXPECTED_STOPS:
            self._log.info(f"not moving: {reason.message}")
        else:
            self._log.error(f"motion stopped ({reason.code}): {self._explain(reason)}")

    def _explain(self, reason: StopReason) -> str:
        """Add who publishes what is missing; asked of the graph, so never in the publisher's thread."""
        kind, _, name = reason.code.partition(":")
        if kind not in ("missing", "stale"):
            return reason.message
        topics = self._inputs.state_topics if name == STATE else [self._inputs.camera_topics[name]]
        seen = "; ".join(describe_publishers(self._node, topic) for topic in topics)
        known = self._inputs.explain_missing_state() if name == STATE else ""
        return f"{reason.message}; {seen}" + (
            f"; {known}" if known else ". Fix: start or remap the publisher, or check that its QoS fits"
        )

    def _now_ns(self) -> int:
        return int(self._node.get_clock().now().nanoseconds)
