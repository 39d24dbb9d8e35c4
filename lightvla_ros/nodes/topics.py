"""Who is at the ends of a topic, as the ROS graph says, and that in words for a person."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rclpy.node import Node

if TYPE_CHECKING:
    from rclpy.topic_endpoint_info import TopicEndpointInfo  # elsewhere in Lyrical


def full_name(name: str, namespace: str) -> str:
    """Join a node's name and namespace."""
    return f"{namespace.rstrip('/')}/{name}"


def node_of(end: TopicEndpointInfo) -> str:
    """Return the full name of the node that an end of a topic belongs to."""
    return full_name(end.node_name, end.node_namespace)


def describe_publishers(node: Node, topic: str) -> str:
    """Name a topic's publishers with type and QoS, or say that there are none."""
    publishers = [
        f"{node_of(info)} ({info.topic_type}, "
        f"{info.qos_profile.reliability.name.lower()}, {info.qos_profile.durability.name.lower()})"
        for info in node.get_publishers_info_by_topic(topic)
    ]
    return f"{topic} has {len(publishers)} publishers" + (f": {', '.join(publishers)}" if publishers else "")


def rivals(node: Node, topic: str, consequence: str) -> str | None:
    """Say who publishes on a topic that should have one publisher; None when there is at most one.

    Args:
        node: asks the graph.
        topic: name of the topic.
        consequence: why a second publisher is bad.
    """
    if node.count_publishers(topic) <= 1:
        return None
    return (
        f"{describe_publishers(node, topic)}; expected one, {consequence}. "
        "Fix: stop or remap the others (one that was killed disappears after some seconds)"
    )
