"""The `lightvla` command: finds the subcommand and runs it.

A subcommand is a module of `lightvla_ros.commands` with `HELP`, `add_arguments(parser)` and
`run(args) -> exit code`. Only the chosen one is imported, so that help is instant and a missing optional
library breaks nothing but the commands that need it.
"""

from __future__ import annotations

import argparse
import ast
import select
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from lightvla_ros import __version__
from lightvla_ros.core.errors import LightVlaError

COMMANDS = (
    "demo",
    "export",
    "build",
    "verify",
    "bench",
    "collect",
    "train",
    "eval",
    "top",
    "view",
    "record",
    "replay",
    "render",
    "doctor",
)

FAILED, INTERRUPTED, NO_READER = 1, 130, 141

STDOUT = 1

# optional library -> the extra of setup.py that brings it
EXTRAS = {
    "accelerate": "train",
    "diagnostic_msgs": "ros",
    "mujoco": "sim",
    "onnx": "export",
    "onnx_ir": "export",
    "onnxscript": "export",
    "peft": "train",
    "rclpy": "ros",
    "rosbags": "record",
    "safetensors": "torch",
    "tensorboard": "train",
    "tensorrt": "tensorrt",
    "tensorrt_rtx": "tensorrt-rtx",
    "torch": "torch",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run `lightvla`.

    Args:
        argv: arguments without the program's name; None takes the process's.

    Returns:
        Exit code: 0 done, 1 failed, 130 interrupted, 141 whoever read the output has gone (`| head`).

    Raises:
        SystemExit: 0 after --help and --version, 2 on wrong usage.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    args = make_parser(arguments).parse_args(arguments)
    try:
        code = int(import_module(_module_name(args.command)).run(args))
        sys.stdout.flush()  # here, where it can be told that nobody reads it
        return code
    except KeyboardInterrupt:
        print(f"lightvla {args.command}: interrupted", file=sys.stderr)
        return INTERRUPTED
    except (LightVlaError, OSError, ModuleNotFoundError) as error:
        if isinstance(error, BrokenPipeError) and _has_no_reader(STDOUT):
            return NO_READER
        message = _message(error)
        if args.debug or message is None:
            raise
        print(f"lightvla {args.command}: error: {message}", file=sys.stderr)
        return FAILED


def make_parser(arguments: Sequence[str] = ()) -> argparse.ArgumentParser:
    """Build the parser; only the command named in `arguments` has its options."""
    parser = argparse.ArgumentParser(
        prog="lightvla",
        description="LightVLA for ROS 2: a vision-language-action policy with learned token pruning.",
        epilog="`lightvla COMMAND --help` describes a command's options.",
    )
    parser.add_argument("--version", action="version", version=f"lightvla_ros {__version__}")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True, title="commands")
    # No option before the command takes a value, so the first plain word is the command.
    chosen = next((argument for argument in arguments if not argument.startswith("-")), None)
    for name in COMMANDS:
        line = _help_line(name)
        command = commands.add_parser(name, help=line, description=line[:1].upper() + line[1:] + ".")
        command.add_argument(
            "--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS
        )
        if name == chosen:
            import_module(_module_name(name)).add_arguments(command)
    return parser


def _has_no_reader(file_descriptor: int) -> bool:
    """Whether this is a pipe or a socket whose other end is closed."""
    poll = select.poll()
    poll.register(file_descriptor, 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


def _message(error: Exception) -> str | None:
    """What to tell the user, or None where the error is a fault of ours."""
    if not isinstance(error, ModuleNotFoundError):
        return str(error)
    extra = EXTRAS.get((error.name or "").partition(".")[0])
    return f"{error.name} is not installed. Fix: pip install 'lightvla_ros[{extra}]'" if extra else None


def _module_name(command: str) -> str:
    return f"lightvla_ros.commands.{command}"


def _help_line(command: str) -> str:
    """Read a command's HELP without importing the module."""
    source = Path(__file__).parent / "commands" / f"{command}.py"
    for node in ast.parse(source.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "HELP":
            return str(ast.literal_eval(node.value))
    raise LookupError(f"{source} has no HELP")
