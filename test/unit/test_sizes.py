"""Files and functions stay small enough to be read at once, or say beside them why not: `# long: ...`.

Files of tests are lists of cases, each of them short, and may be as long as they are.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted(
    path for folder in ("lightvla_ros", "bench", "launch") for path in (ROOT / folder).rglob("*.py")
)
LONGEST_FILE = 300
LONGEST_FUNCTION = 40  # lines of its body, docstring not counted
REASON = re.compile(r"# long: \w+")


def functions(tree: ast.AST) -> Iterator[tuple[str, int, int]]:
    """Yield the name of every function, the first line of its body and its last."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            body = node.body[1:] if ast.get_docstring(node) and len(node.body) > 1 else node.body
            yield node.name, body[0].lineno, node.end_lineno or body[-1].lineno


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_are_short_or_say_why_not(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    if len(lines) > LONGEST_FILE:
        assert any(REASON.match(line) for line in lines[:15]), f"{len(lines)} lines: split, or say why not"
    for name, first, last in functions(ast.parse(text)):
        if last - first >= LONGEST_FUNCTION:
            # The reason may stand above the body's first statement.
            above = lines[first - 2 : last]
            assert any(REASON.search(line) for line in above), f"{name}: {last - first + 1} lines"
