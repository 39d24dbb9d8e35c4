"""docs/safety.md names every reason to stop, and tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in (ROOT / "docs" / "safety.md").read_text().splitlines()
    if line.startswith("|") and "`" in line
]
SOURCES = [
    path.read_text()
    for folder in ("core", "nodes")
    for path in sorted((ROOT / "lightvla_ros" / folder).glob("*.py"))
]


def codes_in_the_source() -> set[str]:
    """Collect what is passed as a code; inputs follow behind a colon."""
    found: set[str] = set()
    for source in SOURCES:
        found |= set(re.findall(r'(?:StopReason|\.block)\(f?"([a-z_]+)', source))
        for body in re.findall(r"def _failure_code.*?(?=\n\ndef |\Z)", source, re.DOTALL):
            found |= set(re.findall(r'"([a-z_]+)"', body))
        found |= set(re.findall(r'kind = "([a-z]+)" if .* else "[a-z]+"', source))
        found |= set(re.findall(r'kind = "[a-z]+" if .* else "([a-z]+)"', source))
    return found


def test_every_reason_to_stop_is_in_the_table_and_none_is_invented() -> None:
    assert {row[2].strip("`") for row in ROWS} == codes_in_the_source()


def test_the_tests_the_table_names_exist() -> None:
    for row in ROWS:
        file, _, name = row[4].strip("`").partition("::")
        paths = list((ROOT / "test").rglob(file))
        assert len(paths) == 1, file
        assert f"def {name}(" in paths[0].read_text(), f"{file}::{name}"
