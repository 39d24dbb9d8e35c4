"""config/policy.yaml tells the same as the typed configuration."""

from __future__ import annotations

from pathlib import Path

import yaml

from lightvla_ros.core.config import NodeConfig, parameters

FILE = Path(__file__).parents[3] / "config" / "policy.yaml"


def test_the_file_lists_every_parameter_with_its_default() -> None:
    expected: dict[str, object] = {}
    for name, value, _ in parameters(NodeConfig()):
        section, _, leaf = name.rpartition(".")
        place = expected.setdefault(section, {}) if section else expected
        place[leaf] = list(value) if isinstance(value, tuple) else value
    assert yaml.safe_load(FILE.read_text()) == {"/**": {"ros__parameters": expected}}


def test_the_comment_above_each_parameter_is_its_meaning_rule_and_mark() -> None:
    comments, gathered = {}, []
    section = ""
    for line in FILE.read_text().splitlines():
        text = line.strip()
        if text.startswith("# "):
            gathered.append(text[2:])
        elif line.startswith("    ") and text.endswith(":"):
            section = text
        elif line.startswith("    ") and text:
            prefix = section.replace(":", ".") if line.startswith("      ") else ""
            comments[prefix + text.split(":")[0]] = " ".join(gathered)
        if not text.startswith("#"):
            gathered = []
    for name, _, info in parameters(NodeConfig()):
        rule = f" [{info.rule}]" if info.rule else ""
        assert comments[name] == info.description + rule + ("" if info.read_only else " (live)")
