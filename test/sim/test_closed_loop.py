"""Policies in the tabletop world, judged episode by episode."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from lightvla_ros.cli import main
from lightvla_ros.core.errors import EngineError
from lightvla_ros.core.observation import ActionChunk, Observation
from lightvla_ros.core.policy import STAGES, Policy
from lightvla_ros.evaluation.closed_loop import Evaluation, evaluate
from lightvla_ros.evaluation.policies import load_compared_policy, load_random_policy
from lightvla_ros.evaluation.random_policy import RandomPolicy
from lightvla_ros.evaluation.retention import Retention
from lightvla_ros.evaluation.rollout import EpisodeResult, Task
from lightvla_ros.evaluation.summary import summarize
from lightvla_ros.sim.instructions import GOALS, WORDINGS
from lightvla_ros.sim.ray_pool import RayCluster
from lightvla_ros.view.video import count_frames


def results(**options: object) -> list[EpisodeResult]:
    given = {
        "load": partial(load_random_policy, "mini"),
        "episodes": 3,
        "seed": 40,
        "max_steps": 6,
        **options,
    }
    return sorted(evaluate(Evaluation(**given)), key=lambda result: result.number)  # type: ignore[arg-type]


def tasks_of(episodes: int, **options: object) -> list[Task]:
    evaluation = Evaluation(load=partial(load_random_policy, "mini"), episodes=episodes, **options)  # type: ignore[arg-type]
    return [evaluation.task(number) for number in range(episodes)]


def without_times(result: EpisodeResult) -> EpisodeResult:
    return replace(result, stages_ms={})


def test_episodes_are_the_same_in_any_process() -> None:
    here = results(load=partial(load_compared_policy, "mini", retention=Retention.parse("random:9")))
    elsewhere = results(
        load=partial(load_compared_policy, "mini", retention=Retention.parse("random:9")), workers=2
    )
    assert list(map(without_times, here)) == list(map(without_times, elsewhere))
    assert [result.seed for result in here] == [40, 41, 42]
    assert all(set(result.retained) == {9} and result.steps == 6 for result in here)


def test_instructions_come_by_turns_and_are_told_as_they_are() -> None:
    tasks = tasks_of(len(GOALS))
    assert [task.instruction for task in tasks] == list(GOALS)
    assert all(task.told == task.instruction for task in tasks)


def test_a_misled_policy_is_told_about_another_object() -> None:
    for task in tasks_of(8, swap_instructions=True, vary_wording=True):
        assert GOALS[task.instruction].item != WORDINGS[task.told].item


def test_other_wordings_ask_for_the_same() -> None:
    tasks = tasks_of(40, vary_wording=True)
    assert len({task.told for task in tasks}) > len(GOALS)
    assert all(WORDINGS[task.told].instruction == task.instruction for task in tasks)


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
    assert printed["stale_action_ratio"] == 0.0 and printed["effective_control_hz"] == 20.0
    # Of two steps a chunk, the first acts on what was just seen and the second 50 ms later.
    assert printed["action_age"] == {"p50_ms": 25.0, "p95_ms": 50.0}
    assert set(printed["stages"]) == set(STAGES)


def test_chance_has_no_policy_to_load(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "--engine", "random", "--episodes", "1", "--max-steps", "4"]) == 0
    assert "random on none: success 0%" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--retain", "attention:9"], "--backend torch"),
        (["--retain", "most"], "drop:SHARE"),
        (["--episodes", "0"], "at least 1"),
        (["--suite", "libero_kitchen"], "libero_object"),
        (["--suite", "libero_object", "--randomize", "mild"], "LIBERO's scenes are fixed"),
        (["--via", "ros", "--delay-ms", "50"], "--via process"),
        (["--delay-ms", "-1"], "0 to 60 s"),
    ],
)
def test_wrong_options_are_refused(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", *options]) != 0
    assert re.search(message, capsys.readouterr().err)


class FailingPolicy(RandomPolicy):
    """Cannot answer about the blue cube."""

    error: Exception = EngineError("engine", got="a failure", expected="actions")

    def predict_chunk(self, observation: Observation) -> ActionChunk:
        if "blue" in observation.instruction:
            raise self.error
        return super().predict_chunk(observation)


class FaultyPolicy(FailingPolicy):
    """Has a fault in its program."""

    error = ZeroDivisionError("division by zero")


def load_failing_policy() -> FailingPolicy:
    return FailingPolicy(load_random_policy("mini").spec)


def load_faulty_policy() -> FaultyPolicy:
    return FaultyPolicy(load_random_policy("mini").spec)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(
    ("load", "told"),
    [
        (load_failing_policy, r"engine; got a failure; expected actions"),
        (load_faulty_policy, r"(?s)Traceback .*\nZeroDivisionError: division by zero\n"),
    ],
)
def test_an_episode_that_breaks_is_an_error_and_the_others_go_on(
    load: Callable[[], Policy], told: str, workers: int
) -> None:
    found = results(load=load, episodes=4, workers=workers)
    assert [bool(result.error) for result in found] == [False, True, False, False]
    assert re.fullmatch(told, found[1].error), "a traceback, but only of a fault in the program"
    summary = summarize(found)
    assert (summary.episodes, summary.errors) == (3, 1)


def test_the_expert_is_asked_as_a_policy_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "--policy", "expert", "--episodes", "2", "--seed", "100", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert printed["success"] == 1.0 and printed["errors"] == 0 and printed["policy"] == "expert"
    assert 20 < printed["steps_mean"] < 110


def test_an_interrupted_evaluation_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "log.jsonl"
    options = ["--engine", "random", "--max-steps", "4", "--log", str(log), "--json"]
    assert main(["eval", *options, "--episodes", "2"]) == 0
    begun = log.read_text()
    assert main(["eval", *options, "--episodes", "4"]) == 0
    assert log.read_text().startswith(begun) and len(log.read_text().splitlines()) == 5
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["episodes"] == 4
    assert main(["eval", *options, "--episodes", "4", "--delay-ms", "50"]) == 1
    assert "'delay_ms': None" in capsys.readouterr().err


def test_videos_are_kept_of_failures(tmp_path: Path) -> None:
    failed = results(load=partial(load_compared_policy, "mini"), episodes=1, videos=tmp_path)
    assert not failed[0].success
    (video,) = tmp_path.iterdir()
    assert video.name.startswith("0000_pick_up_the_red_cube") and count_frames(video) == 3
    won = results(
        load=partial(load_compared_policy, "mini"), episodes=1, seed=11, max_steps=80, videos=tmp_path
    )
    assert won[0].success and list(tmp_path.iterdir()) == [video]


def test_a_slow_policy_acts_on_what_is_old() -> None:
    (late,) = results(load=partial(load_compared_policy, "mini"), episodes=1, max_steps=12, delay_s=0.1)
    assert len(late.ages_ms) == 10 and min(late.ages_ms) == 100.0


@pytest.mark.ray
def test_a_ray_cluster_gives_the_same_results() -> None:
    pytest.importorskip("ray", reason="needs the extra ray")
    here = results(episodes=3)
    there = results(episodes=3, workers=2, cluster=RayCluster(address="local"))
    assert here == there
