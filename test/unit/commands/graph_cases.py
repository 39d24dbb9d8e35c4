"""A healthy graph as the doctor would hear it, for tests to spoil."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from lightvla_ros.commands._finding import Finding
from lightvla_ros.core.graph_survey import Arrival, Endpoint, GraphSurvey, PolicyNode, Topic

IMAGE, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
POSE, JOINTS = "geometry_msgs/msg/PoseStamped", "sensor_msgs/msg/JointState"
TEXT, TWIST, CLOCK = "std_msgs/msg/String", "geometry_msgs/msg/TwistStamped", "rosgraph_msgs/msg/Clock"
NOW_NS = 1_700_000_000_000_000_000
PERIOD_NS = 50_000_000
AGE_NS = 5_000_000
FINGERS = ("finger_left", "finger_right")


def end(node: str, type_name: str, **changes: Any) -> Endpoint:
    return Endpoint(node=node, type_name=type_name, **{"qos": "best effort", "is_reliable": False} | changes)


def arrivals(
    count: int = 40, *, period_ns: int = PERIOD_NS, age_ns: int = AGE_NS, start_ns: int = 0
) -> tuple[Arrival, ...]:
    """Messages at a steady rate, each stamped some time before it came."""
    return tuple(
        Arrival(
            monotonic_ns=start_ns + index * period_ns,
            system_ns=NOW_NS + index * period_ns,
            stamp_ns=NOW_NS + index * period_ns - age_ns,
        )
        for index in range(count)
    )


def heard(name: str, type_name: str, node: str = "/driver", **changes: Any) -> Topic:
    values = {
        "publishers": (end(node, type_name),),
        "arrivals": arrivals(),
        "ended_ns": 40 * PERIOD_NS,
        "content": "640x480 rgb8" if type_name == IMAGE else "",
        "num_bytes": 921_700 if type_name == IMAGE else 100,
    }
    return Topic(name=name, type_name=type_name, **values | changes)


def stamped(topic: Topic, stamps_ns: Iterable[int]) -> Topic:
    """The same messages with other stamps."""
    pairs = zip(topic.arrivals, stamps_ns, strict=False)
    return replace(topic, arrivals=tuple(replace(arrival, stamp_ns=stamp) for arrival, stamp in pairs))


def unpublished(topic: Topic) -> Topic:
    return Topic(name=topic.name, type_name=topic.type_name, ended_ns=topic.ended_ns)


POLICY = PolicyNode(name="/lightvla_policy", state="active", instruction="pick up the red cube")
HEALTHY = GraphSurvey(
    seconds=2.0,
    domain="7",
    wanted=POLICY.name,
    nodes=("/controller", "/driver", POLICY.name),
    policy=POLICY,
    cameras={name: heard(f"/camera/{name}/image", IMAGE) for name in ("third_person", "wrist")},
    states=(
        heard("/robot/eef_pose", POSE),
        heard("/joint_states", JOINTS, joint_names=frozenset({("joint1", *FINGERS)})),
    ),
    instruction=heard("/instruction", TEXT, arrivals=(), content="pick up the red cube", node="/operator"),
    command=Topic(
        name="/policy/command",
        type_name=TWIST,
        publishers=(end(POLICY.name, TWIST, is_reliable=True),),
        subscriptions=(end("/controller", TWIST),),
    ),
    clock=Topic(name="/clock", type_name=CLOCK),
    image_topics={f"/camera/{name}/image": IMAGE for name in ("third_person", "wrist")},
)
EMPTY = replace(
    HEALTHY,
    nodes=(),
    policy=None,
    cameras={name: unpublished(topic) for name, topic in HEALTHY.cameras.items()},
    states=tuple(map(unpublished, HEALTHY.states)),
    instruction=unpublished(HEALTHY.instruction),
    command=unpublished(HEALTHY.command),
    image_topics={},
)


def without_policy(survey: GraphSurvey) -> GraphSurvey:
    """The same graph before a policy node is started."""
    return replace(
        survey, policy=None, nodes=("/controller", "/driver"), command=replace(survey.command, publishers=())
    )


def with_wrist(survey: GraphSurvey = HEALTHY, **changes: Any) -> GraphSurvey:
    """The graph with another wrist camera."""
    wrist = replace(survey.cameras["wrist"], **changes)
    return replace(survey, cameras={**survey.cameras, "wrist": wrist})


def bad(found: Iterable[Finding]) -> list[Finding]:
    return [finding for finding in found if finding.level != "ok"]


def only(found: Iterable[Finding]) -> Finding:
    """The one thing that is not in order."""
    findings = bad(found)
    assert len(findings) == 1, findings
    return findings[0]
