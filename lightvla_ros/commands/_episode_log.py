"""The log of an evaluation: one JSON line per episode, so that one that was interrupted can go on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lightvla_ros.core.errors import ConfigError
from lightvla_ros.evaluation.rollout import EpisodeResult


class EpisodeLog:
    """Results as they come, in a file whose first line says what was asked.

    Args:
        path: the file; made, or read and gone on with.
        settings: what decides the results.

    Raises:
        ConfigError: the file holds results of other settings, or is no such log.
    """

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        self._path = path
        self.results: dict[int, EpisodeResult] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        text = self._read()
        if not text:
            path.write_text(json.dumps({"settings": settings}) + "\n", encoding="utf-8")
            return
        # The last line may have been cut off in the middle.
        whole = text[: text.rfind("\n") + 1]
        for result in self._results_in(whole.splitlines(), settings):
            # What failed for other reasons than the policy's skill is tried again.
            if not result.error:
                self.results[result.number] = result
        # Only now is it known that the file is ours.
        if whole != text:
            path.write_text(whole, encoding="utf-8")

    def missing(self, episodes: int) -> Iterator[int]:
        """Yield the numbers of the episodes that have no result yet."""
        return (number for number in range(episodes) if number not in self.results)

    def add(self, result: EpisodeResult) -> None:
        """Keep a result, on disk at once."""
        self.results[result.number] = result
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(result)) + "\n")

    def _read(self) -> str:
        try:
            return self._path.read_text(encoding="utf-8") if self._path.exists() else ""
        except UnicodeDecodeError as error:
            raise self._wrong("no text") from error

    def _results_in(self, lines: list[str], settings: dict[str, Any]) -> list[EpisodeResult]:
        try:
            parsed = [json.loads(line) for line in lines]
            self._check(parsed[0] if parsed else None, settings)
            return [_result(line) for line in parsed[1:]]
        except json.JSONDecodeError as error:
            raise self._wrong(f"a line that is no JSON: {error}") from error
        except (AttributeError, KeyError, TypeError) as error:
            raise self._wrong(f"a line that is no result of this version: {error!r}") from error

    def _check(self, first: object, settings: dict[str, Any]) -> None:
        known = first.get("settings") if isinstance(first, dict) else None
        if not isinstance(known, dict):
            raise self._wrong("no settings in its first line")
        if known != json.loads(json.dumps(settings)):
            names = sorted(known.keys() | settings.keys())
            other = {name: known.get(name) for name in names if known.get(name) != settings.get(name)}
            raise self._wrong(f"results with {other}")

    def _wrong(self, got: str) -> ConfigError:
        return ConfigError(
            f"log {self._path}",
            got=got,
            expected="a log of the same evaluation, or none",
            fix="name another --log, or delete it",
        )


def _result(line: dict[str, Any]) -> EpisodeResult:
    lists = {name: tuple(line[name]) for name in ("retained", "ages_ms")}
    stages = {stage: tuple(times) for stage, times in line["stages_ms"].items()}
    return EpisodeResult(**{**line, **lists, "stages_ms": stages})
