"""Errors of the package: each says what is wrong, what was got, what is expected and how to mend it."""

from __future__ import annotations


class LightVlaError(Exception):
    """Base of every error this package raises for a reason a user can act on.

    Args:
        what: the thing at fault, as the user knows it (a file, a parameter, a topic).
        got: what was found there.
        expected: the rule it breaks.
        fix: what to do about it, a command where there is one.
    """

    def __init__(self, what: str, *, got: object = None, expected: str = "", fix: str = "") -> None:
        self.what = what
        self.got = got
        self.expected = expected
        self.fix = fix
        parts = [what]
        if got is not None:
            parts.append(f"got {got}")
        if expected:
            parts.append(f"expected {expected}")
        message = "; ".join(parts)
        super().__init__(f"{message}. Fix: {fix}" if fix else message)


class ConfigError(LightVlaError):
    """A parameter or option is unknown, of the wrong type or out of range."""


class SpecError(LightVlaError):
    """An array has the wrong shape, dtype or values for where it was passed."""


class ChunkError(SpecError):
    """An action chunk is misshapen or not finite; it is refused whole."""


class CheckpointError(LightVlaError):
    """A checkpoint directory is missing something, corrupt or of another layout."""


class BundleError(LightVlaError):
    """An engine bundle is missing something, corrupt, or does not fit this machine."""


class EngineError(LightVlaError):
    """A backend could not be loaded or failed while inferring."""


class WorkerError(EngineError):
    """The inference process ended or hangs; it is being restarted."""


class ObservationError(LightVlaError):
    """An observation cannot be used: wrong encoding, size or non-finite state."""


class InstructionError(LightVlaError):
    """An instruction cannot be turned into a prompt."""
