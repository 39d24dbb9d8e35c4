"""Directories that appear whole or not at all."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lightvla_ros.core.errors import BundleError


@contextmanager
def staged(directory: Path) -> Iterator[Path]:
    """Yield a hidden directory that replaces `directory` when the block ends well.

    When it does not, what was at `directory` stays. A process that is killed leaves the hidden directory
    behind; the next one clears it.

    Raises:
        BundleError: another process is writing it, or nothing can be written there.
    """
    staging = directory.with_name(f".{directory.name}.staging")
    try:
        staging.mkdir(parents=True, exist_ok=True)
        with _locked(staging):
            try:
                _clear(staging)
                yield staging
                _replace(directory, staging)
            except BaseException:
                shutil.rmtree(staging, ignore_errors=True)
                raise
    except OSError as e:
        raise BundleError(
            str(directory),
            got=f"{e.strerror or e} ({e.filename or staging})",
            expected="a directory that can be written, with room for the files",
            fix="free space there, or choose another --out",
        ) from e


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # ends with the process, however that ends
        yield
    except BlockingIOError:
        raise BundleError(
            str(directory), got="another process writing it", expected="one at a time", fix="wait for it"
        ) from None
    finally:
        os.close(descriptor)


def _clear(directory: Path) -> None:
    for path in directory.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _replace(directory: Path, staging: Path) -> None:
    retired = directory.with_name(f".{directory.name}.old")
    shutil.rmtree(retired, ignore_errors=True)
    if directory.exists():
        directory.rename(retired)
    staging.rename(directory)
    shutil.rmtree(retired, ignore_errors=True)
