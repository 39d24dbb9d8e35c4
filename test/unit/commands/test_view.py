"""`lightvla view` before it opens a window."""

from __future__ import annotations

import pytest

from lightvla_ros.cli import main


@pytest.mark.parametrize("size", ["", "1280", "1280x", "0x800", "1280x-1", "wide"])
def test_a_size_that_is_none_is_an_error(size: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["view", "--size", size]) == 1
    assert "expected WIDTHxHEIGHT in pixels" in capsys.readouterr().err


def test_without_a_screen_it_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM"):
        monkeypatch.delenv(name, raising=False)
    assert main(["view"]) == 1
    said = capsys.readouterr().err
    assert "neither DISPLAY nor WAYLAND_DISPLAY" in said
    assert "--screenshot" in said
