"""Quantile normalisation of proprio and actions, and LIBERO's gripper convention (spec §3.9, §3.10, §7.2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lightvla_ros.core.errors import ConfigError, SpecError

# Keeps a dimension that never moved from dividing by zero; part of the trained convention.
RANGE_EPSILON = 1e-8
DATASET_SUFFIX = "_no_noops"


def statistics_for(statistics: Mapping[str, Any], key: str | None) -> tuple[str, Mapping[str, Any]]:
    """Find the statistics of one data set.

    Args:
        statistics: contents of `dataset_statistics.json`: data set name -> entry.
        key: data set name, with or without `_no_noops`; None when there is only one entry.

    Returns:
        (name of the entry, the entry).

    Raises:
        ConfigError: the key is unknown, or None while there are several entries or none.
    """
    known = sorted(statistics)
    if key is None and len(known) == 1:
        return known[0], statistics[known[0]]
    candidates = () if key is None else (key, key + DATASET_SUFFIX, key.removesuffix(DATASET_SUFFIX))
    for candidate in candidates:
        if candidate in statistics:
            return candidate, statistics[candidate]
    raise ConfigError(
        "statistics key",
        got=repr(key),
        expected=f"one of {known}" if known else "at least one entry in dataset_statistics.json",
        fix="set the statistics key to a known name"
        if known
        else "put dataset_statistics.json next to the weights",
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NormalizationStats:
    """Quantiles of the data a policy was trained on.

    Attributes:
        action_q01: float64 [A], 1 % quantile of each action dimension, robot units.
        action_q99: float64 [A], 99 % quantile.
        action_mask: bool [A]; False where the action is passed through (the gripper).
        proprio_q01: float64 [P], 1 % quantile of each proprio dimension, robot units.
        proprio_q99: float64 [P], 99 % quantile.
    """

    action_q01: NDArray[np.float64]
    action_q99: NDArray[np.float64]
    action_mask: NDArray[np.bool_]
    proprio_q01: NDArray[np.float64]
    proprio_q99: NDArray[np.float64]

    @classmethod
    def from_entry(cls, entry: Mapping[str, Any]) -> NormalizationStats:
        """Read one entry of `dataset_statistics.json`.

        Raises:
            ConfigError: a section or quantile is missing, of unequal length or not finite.
        """
        action, proprio = _section(entry, "action"), _section(entry, "proprio")
        action_q01, action_q99 = _quantiles("action", action["q01"], action["q99"])
        proprio_q01, proprio_q99 = _quantiles("proprio", proprio["q01"], proprio["q99"])
        return cls(
            action_q01=action_q01,
            action_q99=action_q99,
            action_mask=_mask(action.get("mask"), len(action_q01)),
            proprio_q01=proprio_q01,
            proprio_q99=proprio_q99,
        )


class ActionNormalizer:
    """Map actions between robot units and the model's [-1, 1].

    Args:
        q01: [A], 1 % quantile of each dimension, robot units.
        q99: [A], 99 % quantile.
        mask: [A], False where a dimension is passed through both ways; None means none is.

    Raises:
        ConfigError: lengths differ, a value is not finite, or q01 > q99.
    """

    def __init__(
        self, q01: ArrayLike, q99: ArrayLike, mask: Sequence[bool] | NDArray[np.bool_] | None = None
    ) -> None:
        self.q01, self.q99 = _quantiles("action", q01, q99)
        self.mask = _mask(mask, len(self.q01))
        self._range = self.q99 - self.q01 + RANGE_EPSILON

    def unnormalize(self, normalized: ArrayLike) -> NDArray[np.float64]:
        """Map model output [..., A] to robot units: a = (n + 1) / 2 * (q99 - q01 + 1e-8) + q01, no clipping.

        Raises:
            SpecError: the last axis is not A long.
        """
        values = _last_axis("normalised actions", normalized, len(self.q01))
        return np.where(self.mask, 0.5 * (values + 1.0) * self._range + self.q01, values)

    def normalize(self, actions: ArrayLike) -> NDArray[np.float64]:
        """Map robot units [..., A] to training targets, clipped to [-1, 1] where normalised.

        Raises:
            SpecError: the last axis is not A long.
        """
        values = _last_axis("actions", actions, len(self.q01))
        scaled = np.clip(2.0 * (values - self.q01) / self._range - 1.0, -1.0, 1.0)
        return np.where(self.mask, scaled, values)


class ProprioNormalizer:
    """Map the robot state to the [-1, 1] the model was trained on.

    Args:
        q01: [P], 1 % quantile of each dimension, robot units.
        q99: [P], 99 % quantile.

    Raises:
        ConfigError: lengths differ, a value is not finite, or q01 > q99.
    """

    def __init__(self, q01: ArrayLike, q99: ArrayLike) -> None:
        self.q01, self.q99 = _quantiles("proprio", q01, q99)
        self._range = self.q99 - self.q01 + RANGE_EPSILON

    def normalize(self, proprio: ArrayLike) -> NDArray[np.float32]:
        """Map float64 [..., P] in robot units to float32 [..., P].

        The result is clip(2 (p - q01) / (q99 - q01 + 1e-8) - 1, -1, 1).

        Raises:
            SpecError: the last axis is not P long.
        """
        values = _last_axis("proprio", proprio, len(self.q01))
        return np.clip(2.0 * (values - self.q01) / self._range - 1.0, -1.0, 1.0).astype(np.float32)


def binarize_gripper(actions: ArrayLike) -> NDArray[np.float64]:
    """Turn the model's gripper (1 open, 0 closed) into LIBERO's command (-1 open, +1 close).

    Args:
        actions: [..., A], gripper in the last dimension; exactly 0.5 becomes 0 (no command).

    Returns:
        float64 [..., A], a new array; the other dimensions are unchanged.
    """
    result = np.array(actions, dtype=np.float64)
    # 1 - 2g rather than -(2g - 1): the same sign without a negative zero.
    result[..., -1] = np.sign(1.0 - 2.0 * result[..., -1])
    return result


def _section(entry: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = entry.get(name)
    if not isinstance(section, Mapping) or not {"q01", "q99"} <= set(section):
        raise ConfigError(
            f"{name} statistics",
            got=f"keys {sorted(section)}" if isinstance(section, Mapping) else f"sections {sorted(entry)}",
            expected=f"a section {name!r} with q01 and q99",
            fix="use the dataset_statistics.json written with the checkpoint",
        )
    return section


def _quantiles(name: str, q01: ArrayLike, q99: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    try:
        low, high = np.array(q01, dtype=np.float64), np.array(q99, dtype=np.float64)
    except (TypeError, ValueError) as e:
        raise _bad_quantiles(name, str(e), "two lists of numbers") from e
    if low.ndim != 1 or low.shape != high.shape or low.size == 0:
        raise _bad_quantiles(
            name, f"shapes {low.shape} and {high.shape}", "two non-empty lists of one length"
        )
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise _bad_quantiles(name, f"q01 {low.tolist()}, q99 {high.tolist()}", "finite numbers")
    if (low > high).any():
        raise _bad_quantiles(
            name, f"q01 {low.tolist()}, q99 {high.tolist()}", "q01 <= q99 in every dimension"
        )
    return low, high


def _bad_quantiles(name: str, got: str, expected: str) -> ConfigError:
    fix = "use the dataset_statistics.json written with the checkpoint"
    return ConfigError(f"{name} quantiles q01 and q99", got=got, expected=expected, fix=fix)


def _mask(mask: Sequence[bool] | NDArray[np.bool_] | None, length: int) -> NDArray[np.bool_]:
    values = np.ones(length, dtype=np.bool_) if mask is None else np.array(mask, dtype=np.bool_)
    if values.shape != (length,):
        raise ConfigError(
            "action mask",
            got=f"shape {values.shape}",
            expected=f"{length} booleans, one per action dimension",
            fix="use the dataset_statistics.json written with the checkpoint",
        )
    return values


def _last_axis(name: str, values: ArrayLike, length: int) -> NDArray[np.float64]:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim == 0 or array.shape[-1] != length:
        raise SpecError(
            name,
            got=f"shape {array.shape}",
            expected=f"[..., {length}]",
            fix="the statistics must belong to the model that is run",
        )
    return array
