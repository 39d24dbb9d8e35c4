"""Looks at and listens to all of the ROS graph that concerns a policy node, for some seconds."""

from __future__ import annotations

import os
import time

from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node

from lightvla_ros.core.config import NodeConfig
from lightvla_ros.core.graph_survey import GraphSurvey, Topic
from lightvla_ros.nodes.graph_roles import COMPRESSED_IMAGE, IMAGE, Role, Roles, roles_of
from lightvla_ros.nodes.node_inquiry import NodeInquiry
from lightvla_ros.nodes.observer import observing
from lightvla_ros.nodes.topic_listener import TopicListener
from lightvla_ros.nodes.topics import full_name, node_of
from lightvla_ros.view.policy_status import DEFAULT_NODE

_CLOCK: Role = ("/clock", "rosgraph_msgs/msg/Clock")
_WATCH_PERIOD_S = 0.1


def survey_graph(wanted: str | None, seconds: float) -> GraphSurvey:
    """Listen for some seconds.

    Args:
        wanted: full name of the policy node; None takes `DEFAULT_NODE`, else the first one in a namespace.
        seconds: how long; discovery is part of it.
    """
    with observing("lightvla_doctor") as (node, executor):
        surveyor = _Surveyor(node, wanted)
        surveyor.listen(executor, seconds)
        return surveyor.result(seconds)


class _Surveyor:
    def __init__(self, node: Node, wanted: str | None) -> None:
        self._node, self._wanted = node, wanted
        self._inquiry: NodeInquiry | None = None
        self._listeners: dict[Role, TopicListener] = {}
        self._clock_offset_ns = time.time_ns() - time.monotonic_ns()
        self._clock_step_ns = 0

    def listen(self, executor: SingleThreadedExecutor, seconds: float) -> None:
        ends_s, watched_s = time.monotonic() + seconds, 0.0
        while (now_s := time.monotonic()) < ends_s:
            if now_s - watched_s >= _WATCH_PERIOD_S:
                watched_s = now_s
                self._watch()
            executor.spin_once(timeout_sec=min(_WATCH_PERIOD_S, ends_s - now_s))

    def result(self, seconds: float) -> GraphSurvey:
        names, name = self._names(), self._policy_name()
        inquiry = self._inquiry if name in names else None
        roles = self._roles(name)
        return GraphSurvey(
            seconds=seconds,
            domain=os.environ.get("ROS_DOMAIN_ID") or "0",
            wanted=name,
            nodes=tuple(sorted(names)),
            policy=None if inquiry is None else inquiry.result(names.count(name)),
            other_policies=tuple(sorted({other for other in names if _is_policy(other)} - {name})),
            cameras={camera: self._topic(role) for camera, role in roles.cameras.items()},
            states=tuple(self._topic(role) for role in roles.states),
            instruction=self._topic(roles.instruction),
            command=self._topic(roles.command),
            clock=self._topic(_CLOCK),
            image_topics=self._image_topics(name),
            clock_step_s=self._clock_step_ns / 1e9,
        )

    def _watch(self) -> None:
        self._watch_system_clock()
        name = self._policy_name()
        if name in self._names() and (self._inquiry is None or self._inquiry.name != name):
            self._inquiry = NodeInquiry(self._node, name)
        if self._inquiry is not None:
            self._inquiry.watch()
        for role in (_CLOCK, *self._roles(name).heard):
            self._listener(role).watch()

    def _watch_system_clock(self) -> None:
        offset_ns = time.time_ns() - time.monotonic_ns()
        step_ns, self._clock_offset_ns = offset_ns - self._clock_offset_ns, offset_ns
        self._clock_step_ns = max(self._clock_step_ns, step_ns, key=abs)

    def _names(self) -> list[str]:
        """Full names of the nodes there are but this one and those of command line tools."""
        own = self._node.get_name()
        found = self._node.get_node_names_and_namespaces()
        return [full_name(*name) for name in found if name[0] != own and not name[0].startswith("_")]

    def _policy_name(self) -> str:
        names = self._names()
        if self._wanted is not None or DEFAULT_NODE in names:
            return self._wanted or DEFAULT_NODE
        return min(filter(_is_policy, names), default=DEFAULT_NODE)

    def _roles(self, policy: str) -> Roles:
        namespace, _, base_name = policy.rpartition("/")
        node = self._node
        try:
            hears = node.get_subscriber_names_and_types_by_node(base_name, namespace or "/")
            says = node.get_publisher_names_and_types_by_node(base_name, namespace or "/")
        except Exception:  # noqa: BLE001  # it is not there; rclpy raises another class in every distribution
            hears, says = [], []
        inquiry = self._inquiry
        snapshot = None if inquiry is None else inquiry.snapshot
        return roles_of(
            namespace=namespace,
            config=NodeConfig() if inquiry is None else inquiry.config,
            hears=hears,
            says=says,
            camera_names={} if snapshot is None else {v: k for k, v in snapshot.image_topics.items()},
        )

    def _listener(self, role: Role) -> TopicListener:
        if role not in self._listeners:
            self._listeners[role] = TopicListener(self._node, *role, now=self._sim_ns)
        return self._listeners[role]

    def _topic(self, role: Role) -> Topic:
        return self._listener(role).result(self._policy_name())

    def _sim_ns(self) -> int | None:
        return self._listener(_CLOCK).newest_ns

    def _image_topics(self, policy: str) -> dict[str, str]:
        """What anybody publishes images on, and their type; the pictures of policy nodes left out."""
        return {
            topic: types[0]
            for topic, types in self._node.get_topic_names_and_types()
            if types[0] in (IMAGE, COMPRESSED_IMAGE)
            and any(
                node_of(info) != policy and not _is_policy(node_of(info))
                for info in self._node.get_publishers_info_by_topic(topic)
            )
        }


def _is_policy(name: str) -> bool:
    return name.rpartition("/")[2] == DEFAULT_NODE.strip("/")
