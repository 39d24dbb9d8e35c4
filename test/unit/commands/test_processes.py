"""Child processes get their parameters, end with the block that started them, and say why they failed."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from lightvla_ros.commands._processes import Child, ros_arguments, running
from lightvla_ros.core.errors import LightVlaError

SERVER = "http.server"
SERVER_ARGUMENTS = ["0", "--bind", "127.0.0.1"]


def _wait_for_end(child: Child) -> None:
    deadline_s = time.monotonic() + 20.0
    while child.is_alive:
        assert time.monotonic() < deadline_s, f"{child.name} still runs"
        time.sleep(0.01)


def test_children_run_within_the_block_and_end_with_it(tmp_path: Path) -> None:
    with running({SERVER: SERVER_ARGUMENTS}, log_directory=tmp_path) as children:
        children[SERVER].check()
    assert not children[SERVER].is_alive


def test_children_end_when_the_block_is_interrupted(tmp_path: Path) -> None:
    children: dict[str, Child] = {}
    with (
        pytest.raises(KeyboardInterrupt),
        running({SERVER: SERVER_ARGUMENTS}, log_directory=tmp_path) as started,
    ):
        children = started
        raise KeyboardInterrupt
    assert not children[SERVER].is_alive


def test_a_child_that_ended_is_reported_with_the_end_of_its_log(tmp_path: Path) -> None:
    with running({"no_such_module": []}, log_directory=tmp_path) as children:
        child = children["no_such_module"]
        _wait_for_end(child)
        with pytest.raises(
            LightVlaError, match="(?s)exit status 1.*No module named no_such_module"
        ) as caught:
            child.check()
    assert str(tmp_path / "no_such_module.log") in str(caught.value)


def test_parameters_keep_their_kind_whatever_their_text_looks_like() -> None:
    given = ros_arguments({"yes": True, "rate": 20.0, "count": 1, "name": "on", "path": Path("/my engine")})
    values = ["yes:=true", "rate:=20.0", "count:=1", 'name:="on"', 'path:="/my engine"']
    assert given == ["--ros-args", *(word for value in values for word in ("-p", value))]
