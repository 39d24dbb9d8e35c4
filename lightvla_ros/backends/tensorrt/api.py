"""The one place that imports TensorRT: `tensorrt` 10.3 or newer and 11, or `tensorrt_rtx`.

Both have the same Python API but for what `hasattr` finds: `ComputeCapability`, `IRuntimeConfig`'s
specialisation strategies and the runtime cache are TensorRT-RTX's only.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib import import_module, metadata
from typing import Any, Literal, get_args

from lightvla_ros.core.errors import EngineError

Flavour = Literal["tensorrt", "tensorrt-rtx"]
FLAVOURS: tuple[Flavour, ...] = get_args(Flavour)

# Older ones lack what the engine needs: user-managed context memory of 64-bit size, runtime configurations.
_OLDEST = {"tensorrt": (10, 3), "tensorrt-rtx": (1, 4)}
_MAX_LINES = 100


@dataclass(frozen=True, slots=True)
class TensorRt:
    """One of the two libraries.

    Attributes:
        flavour: which.
        module: the imported module.
    """

    flavour: Flavour
    module: Any

    @property
    def version(self) -> str:
        """Version of the library; plans belong to exactly one."""
        return str(self.module.__version__)

    def make_logger(self) -> Any:
        """Return an `ILogger` whose list `lines` is empty and collects the newest warnings and errors.

        It is the same one every time: TensorRT keeps the first of a process and ignores any other.
        """
        log = _logger(self.module)
        log.lines.clear()
        return log

    def cuda_version(self) -> str:
        """Return the CUDA major version the installed package was built for, or "unknown"."""
        pattern = re.compile(self.module.__name__.replace("_", "[-_.]") + r"[-_.]cu(\d+)")
        names = (distribution.metadata["Name"] or "" for distribution in metadata.distributions())
        return next((match[1] for name in names if (match := pattern.match(name))), "unknown")


def load(flavour: Flavour) -> TensorRt:
    """Import one of the libraries.

    Raises:
        EngineError: it is not installed, cannot be loaded or is too old.
    """
    name = flavour.replace("-", "_")
    fix = f"pip install 'lightvla_ros[{flavour}]'"
    try:
        found = TensorRt(flavour, import_module(name))
    except (ImportError, OSError) as e:
        raise EngineError(
            f"backend '{flavour}'", got=str(e), expected=f"the Python module {name}", fix=fix
        ) from e
    if tuple(int(number) for number in found.version.split(".")[:2]) < _OLDEST[flavour]:
        oldest = ".".join(map(str, _OLDEST[flavour]))
        raise EngineError(
            f"backend '{flavour}'", got=f"version {found.version}", expected=f"{oldest} or newer", fix=fix
        )
    return found


def load_any() -> TensorRt:
    """Import whichever library is installed; TensorRT before TensorRT-RTX.

    Raises:
        EngineError: neither is.
    """
    reasons = []
    for flavour in FLAVOURS:
        try:
            return load(flavour)
        except EngineError as e:
            reasons.append(f"{e.what}: {e.got}")
    raise EngineError(
        "TensorRT",
        got="; ".join(reasons),
        expected="one of the two",
        fix="pip install 'lightvla_ros[tensorrt]', or 'lightvla_ros[tensorrt-rtx]' for GeForce and RTX cards",
    )


@cache
def _logger(module: Any) -> Any:
    worst = {getattr(module.ILogger, name) for name in ("INTERNAL_ERROR", "ERROR", "WARNING")}

    class CollectingLogger(module.ILogger):  # type: ignore[misc]  # the base is known at run time only
        """Keeps what TensorRT reports, for the error that follows, instead of printing it."""

        def __init__(self) -> None:
            module.ILogger.__init__(self)
            self.lines: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in worst:
                self.lines.append(message.strip())
                del self.lines[:-_MAX_LINES]  # a node may run for weeks

    return CollectingLogger()
