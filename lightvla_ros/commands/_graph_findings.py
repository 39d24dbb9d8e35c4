"""What `lightvla doctor` says about the running graph: policy node, time, instruction, command."""

from __future__ import annotations

from collections.abc import Iterator

from lightvla_ros.commands._finding import Finding, Level
from lightvla_ros.commands._input_findings import FIX, camera_findings, state_findings
from lightvla_ros.core.graph_survey import Endpoint, GraphSurvey, PolicyNode, Topic

_LAUNCH = "ros2 launch lightvla_ros policy.launch.py"
_FEW = 5
_NEXT = {"unconfigured": "configure", "inactive": "activate"}


def graph_findings(survey: GraphSurvey) -> Iterator[Finding]:
    """Judge what was seen and heard."""
    if not survey.nodes:
        yield nobody(survey)
    else:
        yield from node_findings(survey)
    yield from time_findings(survey)
    if survey.nodes:
        yield from camera_findings(survey)
        yield from state_findings(survey)
        yield from instruction_findings(survey)
        yield from command_findings(survey)


def nobody(survey: GraphSurvey) -> Finding:
    """Say that the graph is empty, and how to fill it."""
    return Finding(
        section="graph",
        level="note",
        text=f"nobody is on domain {survey.domain}: no policy node, no cameras, no robot",
        fix=f"{_LAUNCH}, or `lightvla demo --domain-id {survey.domain}`; where they run on another domain, "
        "set ROS_DOMAIN_ID as they have",
    )


def node_findings(survey: GraphSurvey) -> Iterator[Finding]:
    """Judge whether the policy node is there, and what it says of itself."""
    if survey.policy is None:
        yield _missing_node(survey)
        return
    yield from _state(survey.policy)
    if survey.policy.count > 1:
        yield _graph(
            "error",
            f"{survey.policy.count} nodes are called {survey.policy.name}: services and parameters reach any",
            "stop all but one, or start each with its own namespace:=",
        )
    if not survey.policy.told_config:
        yield _graph(
            "note", f"{survey.policy.name} did not tell its parameters: it is judged by their defaults"
        )
    if survey.other_policies:
        yield _graph("note", f"other policy nodes: {_some(survey.other_policies)}", "choose with --node")


def _missing_node(survey: GraphSurvey) -> Finding:
    if survey.other_policies:
        text = f"no {survey.wanted}; policy nodes: {_some(survey.other_policies)}"
        return _graph("warning", text, f"--node {survey.other_policies[0]}")
    nodes = f"{len(survey.nodes)} node{'' if len(survey.nodes) == 1 else 's'}"
    text = f"no {survey.wanted} on domain {survey.domain}; {nodes}: {_some(survey.nodes)}"
    return _graph("note", text, _LAUNCH)


def _state(policy: PolicyNode) -> Iterator[Finding]:
    name = policy.name
    if not policy.state:
        fix = "see its log; while it loads a large policy it answers nobody"
        yield _graph("warning", f"{name} is there but does not tell its lifecycle state", fix)
    elif policy.state != "active":
        yield _inactive(policy)
    elif policy.stop_code:
        level: Level = "note" if policy.level == "ok" else "error" if policy.level == "error" else "warning"
        why, _, fix = policy.stop_message.partition(FIX)
        text = f"{name} is active and stands still ({policy.stop_code}): {why}"
        yield _graph(level, text, fix or _way_on(policy))
    else:
        yield _graph("ok", f"{name} is active and acts on {policy.instruction!r}")


def _inactive(policy: PolicyNode) -> Finding:
    step = _NEXT.get(policy.state)
    fix = f"ros2 lifecycle set {policy.name} {step}" if step else "start it again"
    text = f"{policy.name} is {policy.state}"
    if policy.level != "error":
        return _graph("warning", text, fix)
    why, _, remedy = policy.stop_message.partition(FIX)
    return _graph("error", f"{text}: {why}", f"{remedy}; then {fix}" if remedy else fix)


def _way_on(policy: PolicyNode) -> str:
    if policy.stop_code == "disabled":
        return f"ros2 service call {policy.name}/enable std_srvs/srv/SetBool '{{data: true}}'"
    if policy.stop_code in ("estop", "fault", "chunk"):
        return f"ros2 service call {policy.name}/reset std_srvs/srv/Trigger, once the cause is gone"
    return ""


def time_findings(survey: GraphSurvey) -> Iterator[Finding]:
    """Judge /clock, and whether the computer's own clock was set meanwhile."""
    if abs(survey.clock_step_s) > survey.config.max_ahead_s:
        way = "back" if survey.clock_step_s < 0 else "ahead"
        yield _graph(
            "warning",
            f"the system's clock was set {way} by {abs(survey.clock_step_s):.2f} s while listening: the node "
            "resets whenever that happens",
            "let a time service slew it, not step it: chrony without makestep",
        )
    clock = survey.clock
    if survey.uses_sim_time:
        yield _sim_clock(clock)
    elif clock.arrivals and survey.policy is not None:
        yield _graph(
            "warning",
            f"{_who(clock.publishers)} publishes /clock, but {survey.policy.name} keeps the computer's time",
            "start all nodes with use_sim_time:=true, or none",
        )
    if len(clock.publishers) > 1:
        text = f"{len(clock.publishers)} publishers of /clock, {_who(clock.publishers)}: time jumps"
        yield _graph("warning", text, "stop all but one")
    if clock.runs_backwards:
        yield _graph("warning", "the time on /clock went backwards: the node resets whenever that happens")


def _sim_clock(clock: Topic) -> Finding:
    fix = "start the simulator, or start the node with use_sim_time:=false"
    if not clock.publishers:
        return _graph("error", "the node takes its time from /clock, and nobody publishes it", fix)
    if len(set(clock.stamps_ns)) < 2:
        text = f"the time on /clock of {_who(clock.publishers)} stands still: nothing is due, nothing moves"
        return _graph("error", text, "let the simulation run")
    return _graph("ok", f"/clock at {clock.rate_hz or 0.0:.1f} Hz from {_who(clock.publishers)}")


def instruction_findings(survey: GraphSurvey) -> Iterator[Finding]:
    """Judge whether the node is told what to do."""
    topic, policy = survey.instruction, survey.policy
    wrong = [end for end in topic.publishers if end.type_name != topic.type_name]
    if wrong:
        text = f"{topic.name}: {_types(wrong)}; the node hears {topic.type_name} only"
        yield _robot("warning", text, f"publish {topic.type_name}")
    for end in topic.publishers:
        if end.mismatch and end not in wrong:
            yield _robot("warning", f"{topic.name} of {end.node} is not heard: {end.mismatch}")
    instruction = topic.content or ("" if policy is None else policy.instruction)
    if instruction:
        by = f" from {_who(topic.publishers)}" if topic.publishers else ""
        yield _robot("ok", f"{topic.name}: {instruction!r}{by}")
    elif policy is not None and not wrong:
        text = f"{topic.name}: no instruction yet" if topic.publishers else f"{topic.name}: nobody publishes"
        message = "'{data: pick up the red cube and place it in the basket}'"
        yield _robot("note", text, f"ros2 topic pub --once {topic.name} {topic.type_name} {message}")


def command_findings(survey: GraphSurvey) -> Iterator[Finding]:
    """Judge who commands the robot, and whether it listens."""
    topic, policy = survey.command, survey.policy
    if policy is None:
        if topic.publishers:
            text = (
                f"{_who(topic.publishers)} publishes on {topic.name}: a policy node would not move beside it"
            )
            yield _robot("warning", text, "stop it before the policy node starts")
        return
    if policy.config.command.type == "none":
        yield _robot("note", "command.type is none: nothing is commanded")
        return
    rivals = [end for end in topic.publishers if end.node != policy.name]
    if len(topic.publishers) > 1 or rivals:
        who = _who(rivals) if rivals else "another node of its name"
        text = f"{topic.name}: {who} publishes beside {policy.name}, which stands still"
        yield _robot(
            "error",
            text,
            "stop or remap it (two_commanders); ROS forgets one that was killed after some 20 s",
        )
    yield from _listeners(topic)


def _listeners(topic: Topic) -> Iterator[Finding]:
    if not topic.subscriptions:
        text = f"{topic.name}: nobody listens, so nothing moves"
        yield _robot("warning", text, "start the controller, or launch with command_topic:=<its topic>")
    hear: list[Endpoint] = []
    for end in topic.subscriptions:
        if end.type_name != topic.type_name:
            text = f"{topic.name}: {end.node} expects {end.type_name} and hears none of {topic.type_name}"
            yield _robot(
                "error", text, "set command.type for it, or controller:=<profile> (docs/controllers.md)"
            )
        elif end.mismatch:
            yield _robot("error", f"{topic.name}: {end.node} hears nothing: {end.mismatch}", "mend its QoS")
        else:
            hear.append(end)
    if hear:
        yield _robot("ok", f"{topic.name}: {topic.type_name.rpartition('/')[2]}, heard by {_who(hear)}")


def _who(ends: list[Endpoint] | tuple[Endpoint, ...]) -> str:
    return _some(sorted({end.node for end in ends}))


def _types(ends: list[Endpoint]) -> str:
    return ", ".join(sorted({f"{end.type_name} from {end.node}" for end in ends}))


def _some(names: list[str] | tuple[str, ...]) -> str:
    rest = len(names) - _FEW
    return ", ".join(names[:_FEW]) + (f" and {rest} more" if rest > 0 else "")


def _graph(level: Level, text: str, fix: str = "") -> Finding:
    return Finding(section="graph", level=level, text=text, fix=fix)


def _robot(level: Level, text: str, fix: str = "") -> Finding:
    return Finding(section="robot", level=level, text=text, fix=fix)
