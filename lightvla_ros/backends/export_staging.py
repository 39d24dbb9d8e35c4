"""Where an export is written until it is whole: a hidden directory beside its target.

    .<name>.partial/
        export.json   what is being exported, and the parts that are finished
        bundle/       the files; becomes the target in one rename

An interrupted export leaves it behind; the same export takes the finished parts from it.
"""

from __future__ import annotations

import errno
import fcntl
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lightvla_ros.backends.manifest import MANIFEST_NAME, Part, part_from_mapping
from lightvla_ros.core.errors import BundleError

_STATE_NAME = "export.json"


class Staging:
    """One export in the making.

    Attributes:
        bundle: directory its files go to.
    """

    def __init__(self, directory: Path, identity: Mapping[str, Any]) -> None:
        self.bundle = directory / "bundle"
        self._state = directory / _STATE_NAME
        self._identity = json.loads(json.dumps(identity))
        self._parts = self._finished_before()
        self.bundle.mkdir(exist_ok=True)
        self._remove_unfinished()

    def finished(self, part: str) -> Part | None:
        """Return a part that an interrupted run of the same export has written, or None."""
        return self._parts.get(part)

    def record(self, name: str, part: Part) -> None:
        """Remember that a part is whole."""
        self._parts[name] = part
        content = {
            "identity": self._identity,
            "parts": {name: asdict(part) for name, part in self._parts.items()},
        }
        unfinished = self._state.with_suffix(".new")
        unfinished.write_text(json.dumps(content), encoding="utf-8")
        unfinished.replace(self._state)

    def move_to(self, target: Path) -> None:
        """Put the bundle where it belongs; what is there goes away with the staging directory."""
        if target.exists():
            target.rename(self.bundle.with_name("replaced"))
        self.bundle.rename(target)

    def check_space(self, num_bytes: int) -> None:
        """Raise `BundleError` when the disk cannot take `num_bytes` more, less what is written already."""
        written = sum(file.num_bytes for part in self._parts.values() for file in part.files)
        free, needed = shutil.disk_usage(self.bundle).free, num_bytes - written
        if free < needed:
            raise _disk_full(self.bundle, f"{free / 1e9:.2f} GB free", f"{needed / 1e9:.2f} GB")

    def _finished_before(self) -> dict[str, Part]:
        try:
            content = json.loads(self._state.read_text(encoding="utf-8"))
            if content["identity"] != self._identity:
                return {}
            parts = {name: part_from_mapping(part) for name, part in content["parts"].items()}
        except (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError):
            return {}
        return {name: part for name, part in parts.items() if self._is_whole(part)}

    def _remove_unfinished(self) -> None:
        whole = {file.name for part in self._parts.values() for file in part.files}
        for path in self.bundle.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name not in whole:
                path.unlink()

    def _is_whole(self, part: Part) -> bool:
        paths = [self.bundle / file.name for file in part.files]
        return all(
            path.is_file() and path.stat().st_size == file.num_bytes
            for path, file in zip(paths, part.files, strict=True)
        )


@contextmanager
def staging(target: Path, identity: Mapping[str, Any], *, fresh: bool = False) -> Iterator[Staging]:
    """Open the staging directory of a target; it goes away unless the block is interrupted.

    Args:
        target: directory of the bundle to be.
        identity: JSON values that the parts depend on; parts of another identity are thrown away.
        fresh: throw finished parts away in any case.

    Raises:
        BundleError: another export writes to this target, or the disk is full.
    """
    directory = target.parent / f".{target.name}.partial"
    with _disk_errors(directory):
        directory.mkdir(parents=True, exist_ok=True)
        with (directory / "lock").open("w") as lock:
            _lock(lock, target)
            if fresh:
                (directory / _STATE_NAME).unlink(missing_ok=True)
            try:
                yield Staging(directory, identity)
            except Exception:  # after an interrupt, which is none, what is finished stays for the next run
                shutil.rmtree(directory, ignore_errors=True)
                raise
            shutil.rmtree(directory)


def check_target(directory: Path, *, overwrite: bool) -> None:
    """Raise `BundleError` where a bundle must not be written."""
    if not directory.exists() or (directory.is_dir() and not any(directory.iterdir())):
        return
    if not overwrite or not (directory / MANIFEST_NAME).is_file():
        raise BundleError(
            str(directory),
            got="something is there already",
            expected="a new directory, or an older bundle and leave to replace it",
            fix="choose another --out, or pass --force to replace a bundle",
        )


def _lock(stream: Any, target: Path) -> None:
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as e:
        raise BundleError(
            str(target),
            got="another export that writes it",
            expected="one export at a time",
            fix="wait for it, or choose another --out",
        ) from e


@contextmanager
def _disk_errors(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as e:
        if e.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise _disk_full(directory, str(e), "room for the whole bundle") from e


def _disk_full(directory: Path, got: str, expected: str) -> BundleError:
    return BundleError(
        f"disk of {directory.parent}", got=got, expected=expected, fix="free space, or choose another --out"
    )
