"""docs/safety.md names every reason to stop, every fault test and every limit, and none that is not there."""

from __future__ import annotations

import re
from pathlib import Path

from lightvla_ros.core.output_config import LimitsConfig

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "safety.md").read_text()
FAULTS, _, LIMITS = DOCUMENT.partition("## Limits")
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in FAULTS.splitlines()
    if line.startswith("|") and "`" in line
]
SHOWN_BY = {name for row in ROWS for name in re.findall(r"`(\w+\.py::\w+)`", row[4])}
SOURCES = [
    path.read_text()
    for folder in ("core", "nodes")
    for path in sorted((ROOT / "lightvla_ros" / folder).glob("*.py"))
]


def codes_in_the_source() -> set[str]:
    """Collect what is passed as a code; inputs follow behind a colon."""
    found: set[str] = set()
    for source in SOURCES:
        found |= set(re.findall(r'(?:StopReason|\.block|_expect_one)\(\s*f?"([a-z_]+)', source))
        for body in re.findall(r"def _failure_code.*?(?=\n\ndef |\Z)", source, re.DOTALL):
            found |= set(re.findall(r'"([a-z_]+)"', body))
        found |= set(re.findall(r'kind = "([a-z]+)" if .* else "[a-z]+"', source))
        found |= set(re.findall(r'kind = "[a-z]+" if .* else "([a-z]+)"', source))
    return found


def test_every_reason_to_stop_is_in_the_table_and_none_is_invented() -> None:
    assert {row[2].strip("`") for row in ROWS if row[2]} == codes_in_the_source()


def test_every_row_says_what_the_robot_sees_and_which_test_shows_it() -> None:
    for row in ROWS:
        assert len(row) == 5 and row[0] and row[1], row
        assert re.search(r"`\w+\.py::\w+`", row[4]), row


def test_the_tests_the_table_names_exist() -> None:
    for shown in sorted(SHOWN_BY):
        file, _, name = shown.partition("::")
        paths = list((ROOT / "test").rglob(file))
        assert len(paths) == 1, file
        assert f"def {name}(" in paths[0].read_text(), shown


def test_every_fault_test_is_in_the_table() -> None:
    for path in (ROOT / "test" / "faults").glob("test_*.py"):
        tests = {f"{path.name}::{name}" for name in re.findall(r"^def (test_\w+)\(", path.read_text(), re.M)}
        assert tests and tests <= SHOWN_BY, tests - SHOWN_BY


def test_every_limit_is_explained_and_none_is_invented() -> None:
    explained = set(re.findall(r"`limits\.(\w+)`", LIMITS))
    assert explained == set(LimitsConfig.__dataclass_fields__)
