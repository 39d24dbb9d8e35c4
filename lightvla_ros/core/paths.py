"""Where the files shipped beside the code are: a source checkout and every kind of install differ."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from lightvla_ros.core.errors import BundleError

PACKAGE = "lightvla_ros"


def share_directories() -> tuple[Path, ...]:
    """Folders that may hold `engines/`, `config/` and `launch/`, nearest to the running code first.

    The source tree (checkout, editable or symlinked install), the prefix the code was installed into
    (pip, colcon), then every prefix of AMENT_PREFIX_PATH. Read from the environment, so that a machine
    without ROS needs nothing.
    """
    existing = (path for path in _candidates() if path.is_dir())
    return tuple(dict.fromkeys(existing))


def engine_directory(name_or_path: str | Path) -> Path:
    """Directory of an engine bundle or a checkpoint.

    Args:
        name_or_path: a directory, or the name of a bundle that came with the package: "mini" or
            "engines/mini".

    Raises:
        BundleError: there is no such directory; the message lists where it was looked for.
    """
    asked = Path(name_or_path).expanduser()
    tried = [asked]
    if asked.parent in (Path(), Path("engines")):
        tried += [share / "engines" / asked.name for share in share_directories()]
    for directory in tried:
        if directory.is_dir():
            return directory
    raise BundleError(
        f"engine '{name_or_path}'",
        got=f"no directory at {', '.join(dict.fromkeys(str(path.absolute()) for path in tried))}",
        expected="a bundle or checkpoint directory, or the name of a bundle that came with the package",
        fix="check the spelling, or give the directory's path",
    )


def _candidates() -> Iterator[Path]:
    source_tree = Path(__file__).resolve().parents[2]
    if (source_tree / "package.xml").is_file():
        yield source_tree
    # The prefix is above the code in all install layouts, also where sys.prefix is another one
    # (pip --user, Debian's /usr/local).
    for parent in Path(__file__).absolute().parents:
        yield parent / "share" / PACKAGE
    for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep):
        if prefix:
            yield Path(prefix) / "share" / PACKAGE
