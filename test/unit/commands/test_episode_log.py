"""The log that lets an evaluation go on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lightvla_ros.commands._episode_log import EpisodeLog
from lightvla_ros.core.errors import ConfigError
from lightvla_ros.evaluation.rollout import EpisodeResult

SETTINGS = {"policy": "mini", "seed": 3, "delay_ms": None}


def result(number: int, error: str = "") -> EpisodeResult:
    return EpisodeResult(
        number=number,
        seed=3,
        instruction="go",
        told="go",
        success=not error,
        steps=12,
        retained=(3, 4),
        ages_ms=(0.0, 50.0),
        stages_ms={"vision": (1.5, 1.25)},
        error=error,
    )


def test_results_come_back_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "new" / "log.jsonl"
    log = EpisodeLog(path, SETTINGS)
    assert list(log.missing(3)) == [0, 1, 2]
    log.add(result(2))
    log.add(result(0))
    again = EpisodeLog(path, SETTINGS)
    assert again.results == {2: result(2), 0: result(0)}
    assert list(again.missing(4)) == [1, 3]


def test_what_failed_for_other_reasons_is_tried_again(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    EpisodeLog(path, SETTINGS).add(result(1, error="out of memory"))
    assert list(EpisodeLog(path, SETTINGS).missing(2)) == [0, 1]


def test_a_line_cut_off_in_the_middle_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    log = EpisodeLog(path, SETTINGS)
    log.add(result(0))
    whole = path.read_text()
    path.write_text(whole + whole.splitlines()[-1][:40])
    again = EpisodeLog(path, SETTINGS)
    assert list(again.results) == [0]
    again.add(result(1))
    assert list(EpisodeLog(path, SETTINGS).results) == [0, 1]


def test_results_of_another_evaluation_are_refused_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    EpisodeLog(path, SETTINGS).add(result(0))
    before = path.read_text()
    with pytest.raises(ConfigError, match="'seed': 3"):
        EpisodeLog(path, {**SETTINGS, "seed": 4})
    assert path.read_text() == before


RESULT_OF_ANOTHER_VERSION = json.dumps({"settings": SETTINGS}) + '\n{"number": 0}\n'


@pytest.mark.parametrize(
    "content",
    [
        "not json\n",
        '{"other": 1}\n',
        "[1, 2]\n",
        "one line without an end",
        "two lines\nwithout an end",
        RESULT_OF_ANOTHER_VERSION,
        RESULT_OF_ANOTHER_VERSION + '{"num',
    ],
)
def test_another_file_is_refused_and_kept(tmp_path: Path, content: str) -> None:
    path = tmp_path / "notes.txt"
    path.write_text(content)
    with pytest.raises(ConfigError, match="another --log"):
        EpisodeLog(path, SETTINGS)
    assert path.read_text() == content


def test_a_file_that_is_no_text_is_refused_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(b"\x89PNG\r\n")
    with pytest.raises(ConfigError, match="another --log"):
        EpisodeLog(path, SETTINGS)
    assert path.read_bytes() == b"\x89PNG\r\n"
