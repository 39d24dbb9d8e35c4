"""docs/troubleshooting.md quotes what the code really says, and names nothing that is not there."""

from __future__ import annotations

import argparse
import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_safety_doc import codes_in_the_source

from lightvla_ros.cli import COMMANDS, make_parser
from lightvla_ros.core.config import NodeConfig, parameters

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "troubleshooting.md").read_text()
BLOCKS = re.findall(r"^```\w*\n(.*?)^```", DOCUMENT, re.MULTILINE | re.DOTALL)
SPANS = [text for _, text in re.findall(r"(`+)(.+?)\1(?!`)", re.sub(r"(?ms)^```.*?^```", "", DOCUMENT))]
CODE = [*SPANS, *(line for block in BLOCKS for line in block.splitlines())]
SOURCES = [
    path.read_text()
    for folder in ("lightvla_ros", "launch")
    for path in sorted((ROOT / folder).rglob("*.py"))
]
PARAMETERS = {name for name, _, _ in parameters(NodeConfig())}
ARGUMENTS = set(re.findall(r'^    "(\w+)": \(', (ROOT / "launch" / "policy.launch.py").read_text(), re.M))
MESSAGES = [text for text in SPANS if re.search(r"; (got|expected) |\. Fix: ", text)]
_SEPARATORS = r"; |\. Fix: "
# Fewer letters than this match anything.
_MIN_LETTERS = 5


def said_in_the_source() -> tuple[set[str], list[re.Pattern[str]]]:
    """Every text of the package, as it is or, where something is filled in, as a pattern."""
    parts = {
        part
        for source in SOURCES
        for text in texts(ast.parse(source))
        for part in re.split(_SEPARATORS, text)
        if letters(part) >= _MIN_LETTERS
    }
    filled = [part for part in parts if "\0" in part]
    return parts, [re.compile(".*".join(map(re.escape, part.split("\0"))), re.DOTALL) for part in filled]


def texts(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        elif isinstance(node, ast.JoinedStr):
            values = node.values
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "\0" for part in values)


def letters(text: str) -> int:
    return sum(map(str.isalpha, text.removeprefix("expected ")))


def options(command: str) -> set[str]:
    """The options of a command."""
    for action in make_parser([command])._actions:
        if isinstance(action, argparse._SubParsersAction):
            return {option for own in action.choices[command]._actions for option in own.option_strings}
    raise AssertionError(command)


def test_every_reason_to_stop_has_a_row_and_none_is_invented() -> None:
    section = re.search(r"^## Nothing moves\n(.*?)^##+ ", DOCUMENT, re.MULTILINE | re.DOTALL)
    assert section is not None
    rows = re.findall(r"^\| `([a-z_]+)", section[1], re.MULTILINE)
    assert len(rows) == len(set(rows))
    assert set(rows) == codes_in_the_source()


def test_every_quoted_message_is_one_that_the_code_gives() -> None:
    said, patterns = said_in_the_source()
    assert len(MESSAGES) >= 20
    invented = []
    for message in MESSAGES:
        for part in re.split(_SEPARATORS, message):
            # What was got is an example, and what is at fault is often a path.
            if part.startswith("got ") or re.fullmatch(r"\S*[/.]\S*", part) or letters(part) < _MIN_LETTERS:
                continue
            bare = part.removeprefix("expected ")
            forms = part, bare, re.sub(r"^\w+[,:] ", "", bare)  # "positions: its points ..."
            if said.isdisjoint(forms) and not any(p.fullmatch(form) for p in patterns for form in forms):
                invented.append((part, message))
    assert not invented


def test_every_parameter_exists() -> None:
    sections = {name.partition(".")[0] for name in PARAMETERS if "." in name}
    for text in CODE:
        for name in re.findall(r"(?<![\w./~-])([a-z_]+\.[a-z_]+)(?![\w./-])", text):
            assert name in PARAMETERS or name.partition(".")[0] not in sections, text
        for name in re.findall(r"-p ([\w.]+):=", text):
            assert name in PARAMETERS, text
        for name in re.findall(r"param set \S+ ([\w.]+)", text):
            assert name in PARAMETERS, text
        for name in re.findall(r"(?<!-p )(?<![\w.])(\w+):=", text):
            assert name in ARGUMENTS, text


def test_every_name_in_the_page_is_in_the_code() -> None:
    known = "\n".join(SOURCES)
    for text in SPANS:
        if re.fullmatch(r"[a-z]+(_[a-z]+)+", text):
            assert text in PARAMETERS | ARGUMENTS or text in known, text


def test_every_command_and_option_exists() -> None:
    named = {command for text in CODE for command in re.findall(r"^lightvla ([a-z]+)", text)}
    assert named and named <= set(COMMANDS)
    known = {command: options(command) for command in named}
    everywhere = set.union(*known.values())
    for text in CODE:
        for command, rest in re.findall(r"^lightvla ([a-z]+)([^#]*)", text):
            assert set(re.findall(r"(?<!\S)--[a-z-]+", rest)) <= known[command], text
        if re.fullmatch(r"--[a-z-]+( \S+)?", text):
            assert text.split()[0] in everywhere, text


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)#]+)", DOCUMENT))
def test_the_pages_it_links_to_exist(link: str) -> None:
    assert link.startswith("http") or (ROOT / "docs" / link).exists()
