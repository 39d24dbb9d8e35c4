"""Policies in the tabletop world, judged episode by episode."""

from __future__ import annotations

import json
import re
from functools import partial
from pathlib import Path

import pytest

from lightvla_ros.cli import main
from lightvla_ros.evaluation.closed_loop import Evaluation, evaluate
from lightvla_ros.evaluation.policies import load_compared_policy, load_random_policy
from lightvla_ros.evaluation.retention import Retention
from lightvla_ros.evaluation.rollout import EpisodeResult
from lightvla_ros.sim.instructions import GOALS, WORDINGS


def results(**options: object) -> list[EpisodeResult]:
    given = {
        "load": partial(load_random_policy, "mini"),
        "episodes": 3,
        "seed": 40,
        "max_steps": 6,
        **options,
    }
    return sorted(evaluate(Evaluation(**given)), key=lambda result: result.seed)  # type: ignore[arg-type]


def test_episodes_are_the_same_in_any_process() -> None:
    here = results(load=partial(load_compared_policy, "mini", retention=Retention.parse("random:9")))
    elsewhere = results(
        load=partial(load_compared_policy, "mini", retention=Retention.parse("random:9")), workers=2
    )
    assert here == elsewhere
    assert [result.seed for result in here] == [40, 41, 42]
    assert all(set(result.retained) == {9} and result.steps == 6 for result in here)


def test_instructions_come_by_turns_and_are_told_as_they_are() -> None:
    evaluation = Evaluation(load=partial(load_random_policy, "mini"), episodes=len(GOALS))
    assert [evaluation.instruction(number) for number in range(len(GOALS))] == list(GOALS)
    assert all(evaluation.told(number) == evaluation.instruction(number) for number in range(len(GOALS)))


def test_a_misled_policy_is_told_about_another_object() -> None:
    evaluation = Evaluation(
        load=partial(load_random_policy, "mini"), episodes=8, swap_instructions=True, vary_wording=True
    )
    for number in range(8):
        asked, told = GOALS[evaluation.instruction(number)], WORDINGS[evaluation.told(number)]
        assert asked.item != told.item


def test_other_wordings_ask_for_the_same() -> None:
    evaluation = Evaluation(load=partial(load_random_policy, "mini"), episodes=40, vary_wording=True)
    told = [evaluation.told(number) for number in range(40)]
    assert len(set(told)) > len(GOALS)
    assert all(WORDINGS[text].instruction == evaluation.instruction(i) for i, text in enumerate(told))


def test_the_command_writes_what_it_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "result.json"
    options = ["--episodes", "2", "--max-steps", "4", "--seed", "7", "--swap-instructions", "--json"]
    assert main(["eval", *options, "--retain", "drop:0.5", "--out", str(out)]) == 0
    printed = json.loads(capsys.readouterr().out.splitlines()[-1])
    kept = json.loads(out.read_text())
    assert printed == {name: value for name, value in kept.items() if name != "results"}
    assert printed["policy"] == "mini" and printed["retain"] == "drop:0.5" and printed["episodes"] == 2
    first, second = kept["results"]
    assert (first["seed"], second["seed"]) == (7, 8)
    assert first["told"] == second["instruction"] != first["instruction"]
    assert printed["retained_max"] == max(first["retained"] + second["retained"])


def test_chance_has_no_policy_to_load(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "--engine", "random", "--episodes", "1", "--max-steps", "4"]) == 0
    assert "random on none: success 0%" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--retain", "attention:9"], "--backend torch"),
        (["--retain", "most"], "drop:SHARE"),
        (["--episodes", "0"], "at least 1"),
    ],
)
def test_wrong_options_are_refused(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", *options]) != 0
    assert re.search(message, capsys.readouterr().err)
