"""Everything besides weights that a policy needs: what it sees, how it is asked, what its numbers mean."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, cast

from lightvla_ros.core.errors import ConfigError
from lightvla_ros.core.normalize import NormalizationStats
from lightvla_ros.core.preprocess import Fit, ImagePreprocessor
from lightvla_ros.core.prompt import ACTION_PREFIX_ID, OPENVLA_TEMPLATE

LIBERO_ACTION_NAMES = ("dx", "dy", "dz", "drx", "dry", "drz", "gripper")


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyConfig:
    """What turns an engine into a policy; the defaults are those of the published LIBERO models.

    Attributes:
        camera_names: cameras in the order of training.
        image_size: side of the model's square input, pixels.
        grid: (rows, columns) of visual tokens of one camera.
        normalizations: pixel statistics of the vision towers in channel order.
        jpeg: whether images pass through JPEG first, as in training.
        center_crop: whether the central 0.9 of the area is used.
        fit: what happens to images that are not square: "stretch", "pad" or "crop".
        prompt_template: prompt text with one `{instruction}`.
        max_prompt_tokens: longest prompt, BOS included, action prefix excluded.
        action_prefix_id: token between the prompt and the action slots.
        chunk_size: steps per chunk.
        action_names: one name per action dimension; the gripper is the last.
        proprio_dim: length of the state vector.
        step_period_s: seconds between two steps of a chunk.
        statistics_key: data set that `statistics` belong to.
        statistics: quantiles of that data set.
    """

    camera_names: tuple[str, ...] = ("third_person", "wrist")
    image_size: int = 224
    grid: tuple[int, int] = (16, 16)
    normalizations: tuple[str, ...] = ("dinov2", "siglip")
    jpeg: bool = True
    center_crop: bool = True
    fit: str = "stretch"
    prompt_template: str = OPENVLA_TEMPLATE
    max_prompt_tokens: int = 64
    action_prefix_id: int = ACTION_PREFIX_ID
    chunk_size: int = 8
    action_names: tuple[str, ...] = LIBERO_ACTION_NAMES
    proprio_dim: int = 8
    step_period_s: float = 0.05
    statistics_key: str
    statistics: NormalizationStats

    def __post_init__(self) -> None:
        """Refuse values that contradict each other or are out of range."""
        cameras, actions, stats = self.camera_names, self.action_names, self.statistics
        rules = {
            "camera_names": (
                bool(cameras) and len(set(cameras)) == len(cameras),
                "distinct names, at least one",
            ),
            "image_size": (self.image_size >= 1, "at least 1"),
            "grid": (min(self.grid) >= 1, "at least one row and one column"),
            "normalizations": (bool(self.normalizations), "at least one"),
            "max_prompt_tokens": (self.max_prompt_tokens >= 3, "at least 3"),
            "chunk_size": (self.chunk_size >= 1, "at least 1"),
            "action_names": (
                len(set(actions)) == len(actions) == len(stats.action_q01),
                f"{len(stats.action_q01)} distinct names, one per dimension of the statistics",
            ),
            "proprio_dim": (
                self.proprio_dim == len(stats.proprio_q01),
                f"{len(stats.proprio_q01)}, the length of the statistics",
            ),
            "step_period_s": (0 < self.step_period_s < 60, "more than 0, less than 60"),
        }
        for name, (holds, expected) in rules.items():
            if not holds:
                raise _bad(name, getattr(self, name), expected)

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> PolicyConfig:
        """Read what `to_mapping` gives.

        Raises:
            ConfigError: a field is missing, unknown, of the wrong type or out of range.
        """
        if not isinstance(mapping, Mapping):
            raise _bad("", type(mapping).__name__, "a mapping of fields")
        known = {f.name for f in fields(cls)}
        if set(mapping) != known:
            unknown, missing = sorted(set(mapping) - known), sorted(known - set(mapping))
            raise _bad(
                "", f"unknown fields {unknown}, missing fields {missing}", f"the fields {sorted(known)}"
            )
        return cls(**{name: _READERS[name](name, value) for name, value in mapping.items()})

    def to_mapping(self) -> dict[str, Any]:
        """Return plain JSON values."""
        plain = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "statistics"}
        listed = {name: list(value) if isinstance(value, tuple) else value for name, value in plain.items()}
        return {**listed, "statistics": statistics_entry(self.statistics)}


def make_preprocessor(config: PolicyConfig) -> ImagePreprocessor:
    """Build the image side of a policy.

    Raises:
        ConfigError: an option is unknown, or simplejpeg is needed and missing.
    """
    return ImagePreprocessor(
        image_size=config.image_size,
        normalizations=config.normalizations,
        jpeg=config.jpeg,
        center_crop=config.center_crop,
        fit=cast(Fit, config.fit),
    )


def statistics_entry(statistics: NormalizationStats) -> dict[str, Any]:
    """Return statistics as one entry of `dataset_statistics.json`."""
    return {
        "action": {
            "q01": statistics.action_q01.tolist(),
            "q99": statistics.action_q99.tolist(),
            "mask": statistics.action_mask.tolist(),
        },
        "proprio": {"q01": statistics.proprio_q01.tolist(), "q99": statistics.proprio_q99.tolist()},
    }


def _integer(name: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise _bad(name, repr(value), "an integer")
    return value


def _number(name: str, value: object) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise _bad(name, repr(value), "a number")
    return float(value)


def _boolean(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise _bad(name, repr(value), "true or false")
    return value


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise _bad(name, repr(value), "text")
    return value


def _texts(name: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)):
        raise _bad(name, repr(value), "a list of texts")
    return tuple(_text(name, item) for item in value)


def _grid(name: str, value: object) -> tuple[int, int]:
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        raise _bad(name, repr(value), "[rows, columns]")
    return _integer(name, value[0]), _integer(name, value[1])


def _statistics(name: str, value: object) -> NormalizationStats:
    if not isinstance(value, Mapping):
        raise _bad(name, type(value).__name__, "sections 'action' and 'proprio'")
    return NormalizationStats.from_entry(value)


_READERS: dict[str, Callable[[str, Any], Any]] = {
    "camera_names": _texts,
    "image_size": _integer,
    "grid": _grid,
    "normalizations": _texts,
    "jpeg": _boolean,
    "center_crop": _boolean,
    "fit": _text,
    "prompt_template": _text,
    "max_prompt_tokens": _integer,
    "action_prefix_id": _integer,
    "chunk_size": _integer,
    "action_names": _texts,
    "proprio_dim": _integer,
    "step_period_s": _number,
    "statistics_key": _text,
    "statistics": _statistics,
}


def _bad(name: str, got: object, expected: str) -> ConfigError:
    return ConfigError(
        f"policy section, field '{name}'" if name else "policy section",
        got=got,
        expected=expected,
        fix="correct the 'policy' section of manifest.json or lightvla.json",
    )
