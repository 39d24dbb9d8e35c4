"""What `lightvla doctor` says about node, time, instruction and command, from values to findings."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from graph_cases import CLOCK, EMPTY, HEALTHY, POLICY, TEXT, TWIST, bad, end, heard, only, without_policy

from lightvla_ros.commands._graph_findings import (
    command_findings,
    graph_findings,
    instruction_findings,
    node_findings,
    time_findings,
)
from lightvla_ros.core.config import with_values
from lightvla_ros.core.graph_survey import Arrival, GraphSurvey, Topic


def with_policy(**changes: Any) -> GraphSurvey:
    return replace(HEALTHY, policy=replace(POLICY, **changes))


def clock(*times_ns: int, publishers: int = 1) -> Topic:
    return Topic(
        name="/clock",
        type_name=CLOCK,
        publishers=tuple(end(f"/sim{index}", CLOCK) for index in range(publishers)),
        arrivals=tuple(
            Arrival(monotonic_ns=index * 10**8, system_ns=0, stamp_ns=time)
            for index, time in enumerate(times_ns)
        ),
    )


def test_a_healthy_graph_is_in_order() -> None:
    found = list(graph_findings(HEALTHY))
    assert not bad(found)
    assert list(dict.fromkeys(finding.section for finding in found)) == ["graph", "cameras", "robot"]
    assert found[0].text == "/lightvla_policy is active and acts on 'pick up the red cube'"


def test_an_empty_graph_is_one_note_that_says_how_to_start() -> None:
    found = only(graph_findings(EMPTY))
    assert (found.section, found.level) == ("graph", "note")
    assert found.text.startswith("nobody is on domain 7")
    assert "policy.launch.py" in found.fix and "lightvla demo --domain-id 7" in found.fix


def test_without_a_policy_node_the_others_are_named() -> None:
    found = only(node_findings(without_policy(HEALTHY)))
    assert (found.level, found.fix) == ("note", "ros2 launch lightvla_ros policy.launch.py")
    assert found.text == "no /lightvla_policy on domain 7; 2 nodes: /controller, /driver"


def test_a_policy_node_of_another_namespace_is_named_with_the_option() -> None:
    survey = replace(without_policy(HEALTHY), other_policies=("/left/lightvla_policy",))
    found = only(node_findings(survey))
    assert (found.level, found.fix) == ("warning", "--node /left/lightvla_policy")
    also = only(node_findings(replace(HEALTHY, other_policies=("/left/lightvla_policy",))))
    assert (also.level, also.fix) == ("note", "choose with --node")


@pytest.mark.parametrize(
    ("state", "level", "fix"),
    [
        ("unconfigured", "warning", "ros2 lifecycle set /lightvla_policy configure"),
        ("inactive", "warning", "ros2 lifecycle set /lightvla_policy activate"),
        ("finalized", "warning", "start it again"),
    ],
)
def test_a_node_that_is_not_active_is_told_with_the_next_transition(state: str, level: str, fix: str) -> None:
    found = only(node_findings(with_policy(state=state)))
    assert (found.level, found.text, found.fix) == (level, f"/lightvla_policy is {state}", fix)


def test_a_node_that_could_not_be_configured_is_an_error_with_its_reason() -> None:
    survey = with_policy(state="unconfigured", level="error", stop_message="no such engine. Fix: build it")
    found = only(node_findings(survey))
    assert (found.level, found.text) == ("error", "/lightvla_policy is unconfigured: no such engine")
    assert found.fix == "build it; then ros2 lifecycle set /lightvla_policy configure"


def test_a_node_that_says_nothing_is_a_warning() -> None:
    assert only(node_findings(with_policy(state=""))).level == "warning"


@pytest.mark.parametrize(
    ("level", "code", "expected", "fix"),
    [
        ("ok", "disabled", "note", "ros2 service call /lightvla_policy/enable"),
        ("error", "estop", "error", "ros2 service call /lightvla_policy/reset"),
        ("warning", "stale:wrist", "warning", ""),
    ],
)
def test_a_stop_has_the_level_of_the_nodes_diagnostics(
    level: str, code: str, expected: str, fix: str
) -> None:
    found = only(node_findings(with_policy(level=level, stop_code=code, stop_message="why")))
    assert found.level == expected
    assert found.text == f"/lightvla_policy is active and stands still ({code}): why"
    assert found.fix.startswith(fix)


def test_two_nodes_of_one_name_are_an_error() -> None:
    assert "2 nodes are called /lightvla_policy" in only(node_findings(with_policy(count=2))).text


def test_unknown_parameters_are_a_note() -> None:
    assert "defaults" in only(node_findings(with_policy(told_config=False))).text


@pytest.mark.parametrize(("step_s", "way"), [(-1.5, "back by 1.50 s"), (0.3, "ahead by 0.30 s")])
def test_a_system_clock_that_was_set_is_a_warning(step_s: float, way: str) -> None:
    found = only(time_findings(replace(HEALTHY, clock_step_s=step_s)))
    assert found.level == "warning"
    assert way in found.text and "chrony" in found.fix


def test_a_system_clock_that_is_slewed_is_fine() -> None:
    assert not list(time_findings(replace(HEALTHY, clock_step_s=0.001)))


def test_simulated_time_that_nobody_publishes_or_that_stands_still_is_an_error() -> None:
    survey = with_policy(uses_sim_time=True)
    assert "nobody publishes it" in only(time_findings(survey)).text
    still = only(time_findings(replace(survey, clock=clock(5, 5, 5))))
    silent = only(time_findings(replace(survey, clock=clock())))
    assert {still.level, silent.level} == {"error"}
    assert "/clock of /sim0 stands still" in still.text


def test_simulated_time_that_runs_is_fine() -> None:
    (found,) = time_findings(replace(with_policy(uses_sim_time=True), clock=clock(1, 2, 3)))
    assert (found.level, found.text) == ("ok", "/clock at 10.0 Hz from /sim0")


def test_simulated_time_that_the_node_does_not_keep_is_a_warning() -> None:
    found = only(time_findings(replace(HEALTHY, clock=clock(1, 2, 3))))
    assert (found.level, found.fix) == ("warning", "start all nodes with use_sim_time:=true, or none")
    assert not list(time_findings(replace(HEALTHY, clock=clock()))), "a silent publisher harms nobody"


def test_two_clocks_and_a_clock_that_runs_backwards_are_warnings() -> None:
    survey = replace(with_policy(uses_sim_time=True), clock=clock(5, 9, 3, publishers=2))
    texts = [finding.text for finding in bad(time_findings(survey))]
    assert texts[0] == "2 publishers of /clock, /sim0, /sim1: time jumps"
    assert texts[1].startswith("the time on /clock went backwards")


def test_nobody_who_instructs_is_a_note_with_the_command() -> None:
    silent = replace(HEALTHY.instruction, publishers=(), content="")
    survey = replace(with_policy(instruction=""), instruction=silent)
    found = only(instruction_findings(survey))
    assert (found.level, found.text) == ("note", "/instruction: nobody publishes")
    assert found.fix.startswith("ros2 topic pub --once /instruction std_msgs/msg/String")
    assert not list(instruction_findings(without_policy(survey)))


def test_an_instruction_whose_publisher_has_gone_is_still_told() -> None:
    silent = replace(HEALTHY.instruction, publishers=(), content="")
    (found,) = instruction_findings(replace(HEALTHY, instruction=silent))
    assert (found.level, found.text) == ("ok", "/instruction: 'pick up the red cube'")


def test_an_instruction_of_another_type_is_a_warning() -> None:
    topic = heard("/instruction", TEXT, arrivals=(), publishers=(end("/ui", "std_msgs/msg/UInt8"),))
    found = only(instruction_findings(replace(with_policy(instruction=""), instruction=topic)))
    assert (found.level, found.fix) == ("warning", "publish std_msgs/msg/String")


def test_another_commander_is_an_error_beside_a_policy_node_and_a_warning_before() -> None:
    rival = end("/teleop", TWIST)
    topic = replace(HEALTHY.command, publishers=(*HEALTHY.command.publishers, rival))
    found = only(command_findings(replace(HEALTHY, command=topic)))
    assert found.level == "error"
    assert "/teleop publishes beside /lightvla_policy" in found.text
    alone = replace(HEALTHY.command, publishers=(rival,))
    assert only(command_findings(replace(without_policy(HEALTHY), command=alone))).level == "warning"


def test_a_second_commander_of_the_same_name_is_found() -> None:
    topic = replace(HEALTHY.command, publishers=HEALTHY.command.publishers * 2)
    assert "another node of its name" in only(command_findings(replace(HEALTHY, command=topic))).text


def test_a_command_that_nobody_hears_is_a_warning() -> None:
    found = only(command_findings(replace(HEALTHY, command=replace(HEALTHY.command, subscriptions=()))))
    assert found.level == "warning"
    assert "command_topic:=" in found.fix


def test_a_controller_of_another_type_or_quality_of_service_hears_nothing() -> None:
    listeners = (
        end("/servo", "geometry_msgs/msg/Twist"),
        end("/arm", TWIST, mismatch="volatile publisher and transient local subscription"),
    )
    topic = replace(HEALTHY.command, subscriptions=listeners)
    found = bad(command_findings(replace(HEALTHY, command=topic)))
    assert [finding.level for finding in found] == ["error", "error"]
    assert "/servo expects geometry_msgs/msg/Twist and hears none" in found[0].text
    assert "command.type" in found[0].fix
    assert "/arm hears nothing: volatile publisher" in found[1].text


def test_a_node_that_shall_not_command_is_a_note() -> None:
    config = with_values(HEALTHY.config, {"command.type": "none"})
    assert only(command_findings(with_policy(config=config))).level == "note"


def test_many_names_are_shortened() -> None:
    survey = replace(without_policy(HEALTHY), nodes=tuple(f"/n{index}" for index in range(9)))
    assert only(node_findings(survey)).text.endswith("9 nodes: /n0, /n1, /n2, /n3, /n4 and 4 more")
