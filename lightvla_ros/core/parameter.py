"""Parameters as fields of frozen dataclasses: default, meaning and rule in one place."""

from __future__ import annotations

import dataclasses
import math
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from lightvla_ros.core.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterInfo:
    """What one parameter means and may be.

    Attributes:
        description: one sentence for `ros2 param describe` and the YAML file.
        unit: SI unit, empty for pure numbers, names and switches.
        minimum: smallest number allowed, None for no bound.
        maximum: largest number allowed, None for no bound.
        choices: the allowed texts; empty for free text.
        read_only: whether it is fixed when the node starts.
    """

    description: str
    unit: str = ""
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] = ()
    read_only: bool = True

    @property
    def rule(self) -> str:
        """The rule in words, empty when any value of the right type will do."""
        if self.choices:
            return "one of " + ", ".join(self.choices)
        if self.minimum is None or self.maximum is None:
            return ""
        return f"{self.minimum:g} to {self.maximum:g} {self.unit}".rstrip()


def parameter(default: Any, description: str, **info: Any) -> Any:
    """Declare a dataclass field that is a parameter; `info` are the fields of `ParameterInfo`."""
    metadata = {"parameter": ParameterInfo(description=description, **info)}
    return dataclasses.field(default=default, metadata=metadata)


class Section:
    """A part of the tree that checks its own fields."""

    __slots__ = ()

    def __post_init__(self) -> None:
        """Check every field; raise `ConfigError` naming field, rule and value."""
        for field in dataclasses.fields(self):  # type: ignore[arg-type]  # every subclass is a dataclass
            info = field.metadata.get("parameter")
            if info is not None:
                check_value(field.name, getattr(self, field.name), field.default, info)


def check_value(name: str, value: object, default: object, info: ParameterInfo) -> None:
    """Check one value against its default's type and its rule.

    Raises:
        ConfigError: naming the field, the rule and the value.
    """
    fix = f"see config/policy.yaml for {name}"
    if isinstance(value, tuple) and isinstance(default, tuple):
        for item in value:
            check_value(name, item, default[0], info)
        return
    if type(value) is not type(default):
        got = f"{value!r} ({type(value).__name__})"
        raise ConfigError(f"parameter {name}", got=got, expected=type(default).__name__, fix=fix)
    if info.choices and value not in info.choices:
        raise ConfigError(f"parameter {name}", got=repr(value), expected=info.rule, fix=fix)
    if info.minimum is not None and info.maximum is not None:
        number = float(value)  # type: ignore[arg-type]  # numbers only: the default has the same type
        if not math.isfinite(number) or not info.minimum <= number <= info.maximum:
            raise ConfigError(f"parameter {name}", got=value, expected=info.rule, fix=fix)


def walk(section: Any, prefix: str) -> Iterator[tuple[str, Any, ParameterInfo]]:
    """Yield (dotted name, value, meaning) of every field of a section and of those inside it."""
    for field in dataclasses.fields(section):
        value = getattr(section, field.name)
        info = field.metadata.get("parameter")
        if info is None:
            yield from walk(value, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}", value, info


def replace(section: Any, values: Mapping[str, object], prefix: str) -> Any:
    """Return the section with some fields, named by their dotted names, changed and checked."""
    changes: dict[str, object] = {}
    for field in dataclasses.fields(section):
        name = f"{prefix}{field.name}"
        if name in values:
            changes[field.name] = values[name]
        elif any(key.startswith(f"{name}.") for key in values):
            changes[field.name] = replace(getattr(section, field.name), values, f"{name}.")
    return dataclasses.replace(section, **changes)


def coerce(value: object, like: object) -> object:
    """Turn whole numbers into floats, lists and arrays into tuples where the value `like` is one."""
    if isinstance(like, tuple) and isinstance(value, list | tuple | array):
        item = like[0] if like else ""
        return tuple(coerce(entry, item) for entry in value)
    if isinstance(like, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return value
