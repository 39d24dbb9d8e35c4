"""The engines `lightvla bench` compares: every backend present, on the same weights."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol, cast, get_args

from lightvla_ros.backends.loading import Backend, LoadedEngine, load_engine
from lightvla_ros.core.errors import BundleError, ConfigError, EngineError
from lightvla_ros.core.policy_config import make_preprocessor

REFERENCE_STYLE = "reference-style"
ALL = "all"
# What needs no exported bundle.
TORCH_BACKENDS = (REFERENCE_STYLE, "torch")
BACKENDS = (*TORCH_BACKENDS, *(name for name in get_args(Backend) if name not in ("auto", "torch")))


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineChoice:
    """Which engines to compare and how they shall run.

    Attributes:
        backends: names among `BACKENDS`, "auto" for what would serve, or only "all": those that run here.
        num_threads: CPU threads, the same for each.
        device: where torch runs.

    Raises:
        ConfigError: a name is unknown.
    """

    backends: tuple[str, ...]
    num_threads: int
    device: str = "auto"

    def __post_init__(self) -> None:
        """Refuse what no engine is called."""
        unknown = sorted(set(self.backends) - {*BACKENDS, ALL, "auto"})
        if unknown or (ALL in self.backends and len(self.backends) > 1):
            raise ConfigError(
                "--backend", got=list(self.backends), expected=f"'{ALL}', 'auto' or some of {list(BACKENDS)}"
            )

    @property
    def is_all(self) -> bool:
        """Whether backends that do not run here are left out instead of being an error."""
        return self.backends == (ALL,)

    @property
    def names(self) -> tuple[str, ...]:
        """The backends to try, each once."""
        return BACKENDS if self.is_all else tuple(dict.fromkeys(self.backends))


class EngineSource(Protocol):
    """Where the engines of one model come from."""

    name: str

    def load(self, backend: str) -> LoadedEngine:
        """Return the model on a backend; raise `LightVlaError` where that is not possible."""
        ...


class BundleSource:
    """Engines of a bundle or checkpoint; those of torch share one copy of the weights."""

    def __init__(self, path: str | Path, choice: EngineChoice) -> None:
        self.name = str(path)
        self._load = partial(load_engine, path, num_threads=choice.num_threads, device=choice.device)
        self._torch: LoadedEngine | None = None

    def load(self, backend: str) -> LoadedEngine:
        """Load one engine."""
        if backend not in TORCH_BACKENDS:
            return self._load(backend)
        self._torch = self._torch or self._load("torch")
        return self._torch if backend == "torch" else reference_style(self._torch)


def reference_style(loaded: LoadedEngine) -> LoadedEngine:
    """Return the same weights behind an engine that does the work the published code does."""
    from lightvla_ros.backends.torch_reference_style import ReferenceStyleEngine

    # Both torch engines hold their model; the protocol of all engines does not promise one.
    model = cast(Any, loaded.engine).model
    return replace(
        loaded,
        engine=ReferenceStyleEngine(model),
        backend=REFERENCE_STYLE,
        make_preprocessor=make_preprocessor,
    )


@contextmanager
def engines_of(source: EngineSource, choice: EngineChoice) -> Iterator[list[LoadedEngine]]:
    """Yield the engines chosen, open, and close them afterwards.

    Raises:
        LightVlaError: a backend that was named cannot run the model, or, of all, none can.
    """
    with ExitStack() as stack:
        engines: list[LoadedEngine] = []
        for name in choice.names:
            try:
                loaded = source.load(name)
            except (EngineError, BundleError) as e:
                if not choice.is_all:
                    raise
                print(f"skipping {name}: {e}", file=sys.stderr)
                continue
            stack.callback(loaded.engine.close)
            engines.append(loaded)
        if not engines:
            raise EngineError(
                f"engines of '{source.name}'",
                got=f"none of {list(choice.names)} runs here",
                expected="at least one",
                fix="read the reasons above, or name one with --backend",
            )
        yield engines
