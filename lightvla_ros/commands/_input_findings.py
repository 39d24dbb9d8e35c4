"""What `lightvla doctor` says about what the policy node hears: cameras and the robot's state."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median

from lightvla_ros.commands._finding import Finding, Level
from lightvla_ros.commands._ros_findings import shipped_profile
from lightvla_ros.core.graph_survey import Endpoint, GraphSurvey, Topic, pairing

_IMAGE, _COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
_JOINTS = "sensor_msgs/msg/JointState"
# Fast DDS's shared memory of a process, without a profile.
_DEFAULT_SEGMENT = 512 * 1024
_OTHER_CLOCK_S = 1e6
_FEW_PAIRS = 0.5
# How our errors introduce what to do about them.
FIX = ". Fix: "


def camera_findings(survey: GraphSurvey) -> Iterator[Finding]:
    """Judge every camera, and whether their stamps agree."""
    silent = [topic for topic in survey.cameras.values() if not topic.publishers]
    if survey.policy is None and len(silent) == len(survey.cameras) and not survey.image_topics:
        names = ", ".join(topic.name for topic in silent)
        yield _camera(
            "note", f"nobody publishes images, on {names} or elsewhere", "start the cameras' drivers"
        )
        return
    for name, topic in survey.cameras.items():
        found = [*_publisher_findings(survey, name, topic), *_message_findings(survey, topic, "cameras")]
        yield from found or [_camera("ok", _summary(survey, topic))]
    yield from pair_findings(survey)


def pair_findings(survey: GraphSurvey) -> Iterator[Finding]:
    """Judge whether images of all cameras can be used together."""
    allowed_s = survey.config.camera.max_pair_skew_s
    found = pairing([topic.stamps_ns for topic in survey.cameras.values()], allowed_s)
    if found is None or not all(stamp for topic in survey.cameras.values() for stamp in topic.stamps_ns):
        return
    text = f"the cameras' stamps differ by {_time(found.skew_s)}, {_time(allowed_s)} are allowed"
    fix = "synchronise the cameras or their computers' clocks, or raise camera.max_pair_skew_s"
    if found.share == 0.0:
        yield _camera(_bad(survey), f"{text}: no image has a partner", fix)
    elif found.share < _FEW_PAIRS:
        yield _camera("warning", f"{text}: {found.share:.0%} of the images have a partner", fix)
    else:
        yield _camera("ok", text)


def state_findings(survey: GraphSurvey) -> Iterator[Finding]:
    """Judge the topics of the robot's state."""
    silent = [topic for topic in survey.states if not topic.publishers]
    if survey.policy is None and len(silent) == len(survey.states):
        names = " or ".join(topic.name for topic in silent)
        yield _robot("note", f"nobody publishes the robot's state on {names}", "start the robot's driver")
        return
    for topic in survey.states:
        found = [*_publisher_findings(survey, "", topic), *_message_findings(survey, topic, "robot")]
        if topic.type_name == _JOINTS and topic.joint_names:
            found += joint_findings(survey, topic)
        yield from found or [_robot("ok", _summary(survey, topic))]


def joint_findings(survey: GraphSurvey, topic: Topic) -> Iterator[Finding]:
    """Judge whether the gripper's joints are there, all in one message."""
    wanted = survey.config.proprio.gripper_joints
    if any(set(wanted) <= set(names) for names in topic.joint_names):
        return
    names = sorted({name for names in topic.joint_names for name in names})
    yield _robot(
        _bad(survey),
        f"{topic.name}: no message has all of the gripper's joints {', '.join(wanted)}; heard are "
        f"{', '.join(names)}",
        "set proprio.gripper_joints (and proprio.gripper_scales) to your gripper's, those of one message",
    )


def _publisher_findings(survey: GraphSurvey, camera: str, topic: Topic) -> Iterator[Finding]:
    """Judge who publishes: nobody, several, another type, with a quality of service that does not fit."""
    section = "cameras" if camera else "robot"
    if not topic.publishers:
        level: Level = "note" if survey.policy is None else "error"
        fix = (
            _other_images(survey, camera, topic) if camera else "start the robot's driver, or remap its topic"
        )
        yield _finding(section, level, f"{topic.name}: nobody publishes", fix)
        return
    for end in topic.publishers:
        if end.type_name != topic.type_name:
            yield _finding(section, _bad(survey), *_wrong_type(topic, end))
        elif end.mismatch:
            fix = "set camera.reliability to auto" if camera else "mend its QoS"
            yield _finding(
                section, _bad(survey), f"{topic.name}: {end.node} is not heard: {end.mismatch}", fix
            )
    # Several drivers may share the joint states.
    if len(topic.publishers) > 1 and topic.type_name != _JOINTS:
        names = ", ".join(end.node for end in topic.publishers)
        text = f"{topic.name}: {len(topic.publishers)} publishers, {names}"
        if camera:
            text += "; the node stands still (two_publishers)"
        yield _finding(section, _bad(survey), text, "stop or remap all but one")


def _wrong_type(topic: Topic, end: Endpoint) -> tuple[str, str]:
    text = f"{topic.name}: {end.node} publishes {end.type_name}, the node expects {topic.type_name}"
    if {end.type_name, topic.type_name} == {_IMAGE, _COMPRESSED}:
        transport = "compressed" if end.type_name == _COMPRESSED else "raw"
        return text, f"set camera.transport to {transport}, and remap the topic that it then listens to"
    return text, f"publish {topic.type_name}, or remap"


def _other_images(survey: GraphSurvey, camera: str, topic: Topic) -> str:
    """Say where the images of a camera that nobody publishes may be."""
    is_compressed = topic.type_name == _COMPRESSED
    twin = topic.name.removesuffix("/compressed") if is_compressed else f"{topic.name}/compressed"
    if twin in survey.image_topics:
        return f"set camera.transport to {'raw' if is_compressed else 'compressed'}: {twin} is published"
    ours = {other.name for other in survey.cameras.values()}
    others = [
        name for name, kind in survey.image_topics.items() if name not in ours and kind == topic.type_name
    ]
    if others:
        argument = f"{camera}_topic" if camera in ("third_person", "wrist") else "a remapping"
        return f"start its driver, or launch with {argument}:=<topic>; images are on {', '.join(others[:5])}"
    return (
        "start its driver, or check that it is on this domain (ROS_DOMAIN_ID, ROS_AUTOMATIC_DISCOVERY_RANGE)"
    )


def _message_findings(survey: GraphSurvey, topic: Topic, section: str) -> Iterator[Finding]:
    """Judge what came: nothing, too seldom, unusable, or stamped with another time."""
    senders = [end for end in topic.publishers if end.type_name == topic.type_name and not end.mismatch]
    if not senders:
        return
    bad = _bad(survey)
    if not topic.arrivals:
        text = f"{topic.name}: nothing came from {senders[0].node} in {survey.seconds:g} s"
        yield _finding(section, bad, text, _loss_fix(topic, senders) or "check that its driver runs")
        return
    if topic.problem:
        problem, _, fix = topic.problem.partition(FIX)
        yield _finding(section, bad, f"{topic.name}: {problem}", fix)
    limit_s = survey.config.stale_after_s
    if topic.longest_gap_s > limit_s:
        text = (
            f"{topic.name}: {_rate(topic)}, up to {_time(topic.longest_gap_s)} without a message; the node "
        )
        text += f"stops after {_time(limit_s)}"
        fix = _loss_fix(topic, senders) or "publish more often, or raise stale_after_s"
        yield _finding(section, bad, text, fix)
    yield from stamp_findings(survey, topic, section)


def stamp_findings(survey: GraphSurvey, topic: Topic, section: str) -> Iterator[Finding]:
    """Judge the stamps of messages against the clock and against each other."""
    stamps, bad = topic.stamps_ns, _bad(survey)
    if not stamps:
        return
    if not all(stamps):
        text = f"{topic.name}: {stamps.count(0)} of {len(stamps)} stamps are zero, and so count as stale"
        yield _finding(section, bad, text, "let its driver stamp each message with the time it was taken")
        return
    if topic.num_repeats:
        text = f"{topic.name}: {topic.num_repeats} of {len(stamps)} stamps are not newer than the one before"
        yield _finding(section, "warning", f"{text}: such messages are not used", "check the driver's stamps")
    ages_s = topic.ages_s(uses_sim_time=survey.uses_sim_time)
    if not ages_s:
        return
    fix = "synchronise the computers' clocks (chrony), and stamp with the time the data was taken"
    if abs(median(ages_s)) > _OTHER_CLOCK_S:
        fix = "use one time everywhere: use_sim_time in all nodes or in none, and drivers that stamp with it"
    if -min(ages_s) > survey.config.max_ahead_s:
        text = f"{topic.name}: stamps up to {_time(-min(ages_s))} ahead of the clock are refused"
        yield _finding(section, bad, text, fix)
    elif median(ages_s) > survey.config.stale_after_s:
        text = f"{topic.name}: {_time(median(ages_s))} old on arrival; the node uses nothing older than "
        yield _finding(section, bad, text + _time(survey.config.stale_after_s), fix)


def _loss_fix(topic: Topic, senders: Sequence[Endpoint]) -> str:
    """How to get large images through; "" where they are not what is lost."""
    may_be_large = not topic.arrivals or topic.num_bytes > _DEFAULT_SEGMENT
    if "Image" not in topic.type_name or senders[0].is_reliable or not may_be_large:
        return ""
    return (
        "check the driver; large images sent with best effort are lost without "
        f"FASTDDS_DEFAULT_PROFILES_FILE={shipped_profile()} where it starts, or let it publish reliably"
    )


def _summary(survey: GraphSurvey, topic: Topic) -> str:
    end = topic.publishers[0]
    parts = [part for part in (_rate(topic), topic.content, end.qos) if part]
    ages_s = topic.ages_s(uses_sim_time=survey.uses_sim_time)
    age = f", {_time(max(median(ages_s), 0.0))} old" if ages_s else ""
    return f"{topic.name}: {', '.join(parts)} from {end.node}{age}"


def _rate(topic: Topic) -> str:
    count = len(topic.arrivals)
    rate_hz = topic.rate_hz
    return f"{count} message{'' if count == 1 else 's'}" if rate_hz is None else f"{rate_hz:.1f} Hz"


def _time(seconds: float) -> str:
    if abs(seconds) < 1.0:
        return f"{seconds * 1e3:.0f} ms"
    return f"{seconds:.1f} s" if seconds < _OTHER_CLOCK_S else f"{seconds / 86400:.0f} days"


def _bad(survey: GraphSurvey) -> Level:
    """Level of what keeps a policy node from moving: there is one, or there may be later."""
    return "warning" if survey.policy is None else "error"


def _camera(level: Level, text: str, fix: str = "") -> Finding:
    return _finding("cameras", level, text, fix)


def _robot(level: Level, text: str, fix: str = "") -> Finding:
    return _finding("robot", level, text, fix)


def _finding(section: str, level: Level, text: str, fix: str = "") -> Finding:
    return Finding(section=section, level=level, text=text, fix=fix)
