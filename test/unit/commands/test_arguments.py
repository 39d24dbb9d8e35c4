"""Options that are no number of the kind they should be are wrong usage, told in words."""

from __future__ import annotations

import pytest

from lightvla_ros.cli import main


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "many", ""])
@pytest.mark.parametrize(
    ("command", "option"),
    [("demo", "--episodes"), ("collect", "--workers"), ("render", "--moments"), ("replay", "--limit")],
)
def test_a_count_is_a_whole_number_from_one_on(
    command: str, option: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main([command, option, value])
    assert end.value.code == 2
    told = f"argument {option}: got {value!r}; expected a whole number, at least 1"
    assert told in capsys.readouterr().err


@pytest.mark.parametrize("value", ["0", "-0.5", "nan", "inf", "fast"])
@pytest.mark.parametrize(("command", "option"), [("render", "--fps"), ("doctor", "--seconds")])
def test_a_rate_or_a_duration_is_a_number_above_zero(
    command: str, option: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main([command, option, value])
    assert end.value.code == 2
    assert f"argument {option}: got {value!r}; expected a number above 0" in capsys.readouterr().err


def test_the_doctor_listens_for_an_hour_at_most(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["doctor", "--seconds", "3601"])
    assert "got '3601'; expected at most 3600 seconds" in capsys.readouterr().err
