"""The `lightvla` command: help, exit codes, and that it stays light."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from types import ModuleType

import pytest

from lightvla_ros import __version__
from lightvla_ros.cli import COMMANDS, main
from lightvla_ros.core.errors import ConfigError

HEAVY = {"cv2", "mujoco", "numpy", "onnx", "onnxruntime", "rclpy", "tokenizers", "torch", "transformers"}

Command = Callable[[Callable[[argparse.Namespace], int]], None]


@pytest.fixture
def bench_runs(monkeypatch: pytest.MonkeyPatch) -> Command:
    """Put a function in the place of `lightvla bench`."""

    def install(run: Callable[[argparse.Namespace], int]) -> None:
        module = ModuleType("lightvla_ros.commands.bench")
        vars(module).update(
            HELP="test", run=run, add_arguments=lambda parser: parser.add_argument("--rounds", type=int)
        )
        monkeypatch.setitem(sys.modules, module.__name__, module)

    return install


def raising(error: BaseException) -> Callable[[argparse.Namespace], int]:
    def run(args: argparse.Namespace) -> int:
        raise error

    return run


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    assert end.value.code == 0
    listed = capsys.readouterr().out
    assert all(f"\n    {name} " in listed for name in COMMANDS)


def test_help_imports_nothing_heavy() -> None:
    code = "import sys; from lightvla_ros.cli import make_parser; make_parser(); print(*sys.modules)"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "lightvla_ros.cli" in output.split()
    assert not HEAVY & set(output.split())


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_keeps_to_the_convention(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    module = import_module(f"lightvla_ros.commands.{name}")
    assert module.HELP
    assert callable(module.run)
    with pytest.raises(SystemExit) as end:
        main([name, "--help"])
    assert end.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: lightvla {name} ")


def test_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out == f"lightvla_ros {__version__}\n"


@pytest.mark.parametrize(
    "arguments", [[], ["nothing"], ["bench", "--rounds", "many"], ["--nothing", "bench"]]
)
def test_wrong_usage_is_exit_code_2(arguments: list[str], bench_runs: Command) -> None:
    bench_runs(lambda args: 0)
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2


@pytest.mark.parametrize("code", [0, 1])
def test_the_commands_exit_code_is_returned(code: int, bench_runs: Command) -> None:
    bench_runs(lambda args: code if args.rounds == 3 else 7)
    assert main(["bench", "--rounds", "3"]) == code


def test_an_error_is_one_line_and_exit_code_1(
    bench_runs: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    bench_runs(raising(ConfigError("rounds", got=-1, expected="at least 1")))
    assert main(["bench"]) == 1
    assert capsys.readouterr().err == "lightvla bench: error: rounds; got -1; expected at least 1\n"


def test_a_file_that_cannot_be_written_is_an_error_too(
    bench_runs: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    bench_runs(raising(PermissionError(13, "Permission denied", "/out")))
    assert main(["bench"]) == 1
    assert "Permission denied: '/out'" in capsys.readouterr().err


def test_a_missing_library_is_named_with_its_extra(
    bench_runs: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    bench_runs(raising(ModuleNotFoundError("No module named 'rclpy.node'", name="rclpy.node")))
    assert main(["bench"]) == 1
    assert "pip install 'lightvla_ros[ros]'" in capsys.readouterr().err


def test_a_fault_of_ours_keeps_its_traceback(bench_runs: Command) -> None:
    bench_runs(raising(ModuleNotFoundError("No module named 'lightvla_ros.x'", name="lightvla_ros.x")))
    with pytest.raises(ModuleNotFoundError):
        main(["bench"])


@pytest.mark.parametrize("arguments", [["--debug", "bench"], ["bench", "--debug"]])
def test_debug_shows_the_traceback(arguments: list[str], bench_runs: Command) -> None:
    bench_runs(raising(ConfigError("rounds")))
    with pytest.raises(ConfigError):
        main(arguments)


@pytest.mark.parametrize("lines", [1, 100_000])
def test_a_reader_that_has_gone_ends_the_command_without_a_word(lines: int) -> None:
    """With one line the pipe is found broken at the end, with many under way."""
    code = (
        "import sys; from types import SimpleNamespace as Module; from lightvla_ros.cli import main\n"
        f"def run(args): [print('line') for _ in range({lines})]; return 0\n"
        "name = 'lightvla_ros.commands.bench'\n"
        "sys.modules[name] = Module(run=run, add_arguments=lambda parser: None)\n"
        "sys.exit(main(['bench']))"
    )
    reader, writer = os.pipe()
    os.close(reader)
    try:
        ended = subprocess.run(
            [sys.executable, "-c", code], stdout=writer, stderr=subprocess.PIPE, check=False
        )
    finally:
        os.close(writer)
    assert (ended.returncode, ended.stderr) == (141, b"")


def test_a_broken_pipe_that_is_not_the_output_is_an_error(
    bench_runs: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    bench_runs(raising(BrokenPipeError(32, "Broken pipe")))
    assert main(["bench"]) == 1
    assert "Broken pipe" in capsys.readouterr().err


def test_an_interrupt_is_exit_code_130(bench_runs: Command) -> None:
    bench_runs(raising(KeyboardInterrupt()))
    assert main(["bench"]) == 130
