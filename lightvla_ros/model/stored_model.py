"""A network on disk: its weights are read one by one, when asked for, and checked as they are read.

Files are mapped into memory, so what was read can be dropped again by the system; whoever goes through
all weights holds one of them at a time.
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lightvla_ros.core.errors import CheckpointError
from lightvla_ros.model.config import ModelConfig, read_json
from lightvla_ros.model.lightvla import LightVla

HEADS = ("action_head", "proprio_projector")
_MAX_NAMED = 8
_BLOCK = 1 << 22

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredModel:
    """A network whose weights are still in their files.

    Attributes:
        config: sizes of the network.
        weights: state-dict name -> tensor in the dtype of the file, read at every access.
        statistics: normalisation statistics, where they are stored with the weights.
        weights_hash: what the weights are known to hash to, or None.
    """

    config: ModelConfig
    weights: Mapping[str, Tensor]
    statistics: Mapping[str, Any] = field(default_factory=dict)
    weights_hash: str | None = None

    def load(self, *, dtype: torch.dtype = torch.float32, device: str = "cpu") -> LightVla:
        """Read everything into a model in evaluation mode; the peak is the model plus one tensor."""
        with torch.device("meta"):
            model = LightVla(self.config, self.statistics)
        # A copy, because what the files gave is a view of them.
        state = {
            name: tensor.to(device=device, dtype=dtype, copy=True) for name, tensor in self.weights.items()
        }
        model.load_state_dict(state, assign=True)
        return model.eval()


def model_shapes(config: ModelConfig) -> Shapes:
    """Name and shape of every weight the network has."""
    with torch.device("meta"):
        state = LightVla(config).state_dict()
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def num_weights(config: ModelConfig) -> int:
    """Count the numbers that the network's weights are made of."""
    return sum(math.prod(shape) for shape in model_shapes(config).values())


def blocks(tensor: Tensor) -> Iterator[Tensor]:
    """Cut a tensor into flat pieces, so that what is computed from it stays small."""
    yield from tensor.detach().reshape(-1).split(_BLOCK)


class _Entry(NamedTuple):
    shape: tuple[int, ...]
    read: Callable[[], Tensor]


class CheckpointWeights(Mapping[str, Tensor]):
    """The weights of a checkpoint directory in the published layout (spec §6).

    Args:
        directory: holds safetensors weights and the two heads.
        expected: the weights of the network.
        optional: tensors that published checkpoints have and nobody reads.

    Raises:
        CheckpointError: a weight is missing, unexpected or of the wrong shape, or a file is corrupt.
    """

    def __init__(self, directory: Path, expected: Shapes, optional: Shapes) -> None:
        self._directory = directory
        self._expected = expected
        self._entries = dict(_entries(directory))
        for name, entry in self._entries.items():
            _check_shape(name, entry.shape, expected, optional)
        missing = sorted(expected.keys() - self._entries.keys())
        if missing:
            raise CheckpointError(
                f"weights in {directory}",
                got=f"no {_some(missing)}",
                expected=f"{len(expected)} tensors",
                fix="fetch it again",
            )

    def __getitem__(self, name: str) -> Tensor:
        """Read a weight.

        Raises:
            CheckpointError: the file is corrupt, or the weight is not finite.
        """
        if name not in self._expected:
            raise KeyError(name)
        try:
            tensor = self._entries[name].read()
        except (SafetensorError, OSError) as e:
            raise CheckpointError(
                f"tensor '{name}' in {self._directory}",
                got=str(e),
                expected="a whole safetensors file",
                fix="fetch it again",
            ) from e
        if not all(torch.isfinite(block).all() for block in blocks(tensor)):
            raise CheckpointError(
                f"tensor '{name}'",
                got="NaN or infinite values",
                expected="finite weights",
                fix="fetch it again",
            )
        return tensor

    def __iter__(self) -> Iterator[str]:
        """Go through the names of the network's weights."""
        return iter(self._expected)

    def __len__(self) -> int:
        """Count the network's weights."""
        return len(self._expected)


def _entries(directory: Path) -> Iterator[tuple[str, _Entry]]:
    for path in _weight_files(directory):
        yield from _shard_entries(path)
    for head in HEADS:
        for name, tensor in _read_head(directory, head).items():
            entry = _Entry(tuple(tensor.shape), partial(_same, tensor))
            yield f"{head}.{name.removeprefix('module.')}", entry


def _same(tensor: Tensor) -> Tensor:
    return tensor


def _shard_entries(path: Path) -> Iterator[tuple[str, _Entry]]:
    try:
        file = safe_open(path, framework="pt")
        for name in file.keys():  # noqa: SIM118 (safe_open is not a mapping)
            yield name, _Entry(tuple(file.get_slice(name).get_shape()), partial(file.get_tensor, name))
    except (SafetensorError, OSError) as e:
        raise CheckpointError(
            str(path), got=str(e), expected="a whole safetensors file", fix="fetch it again"
        ) from e


def _weight_files(directory: Path) -> list[Path]:
    index = directory / "model.safetensors.index.json"
    if index.is_file():
        files = sorted({directory / name for name in read_json(index).get("weight_map", {}).values()})
    else:
        files = [directory / "model.safetensors"]
    missing = [path.name for path in files if not path.is_file()]
    if missing or not files:
        raise CheckpointError(
            f"weight files in {directory}",
            got=f"no {_some(missing) if missing else 'entry in the index'}",
            expected="model.safetensors, or every shard its index names",
            fix="fetch the missing files",
        )
    return files


def _read_head(directory: Path, prefix: str) -> dict[str, Tensor]:
    matches = sorted(p for p in directory.glob(f"{prefix}*.pt") if "checkpoint" in p.name)
    if len(matches) != 1:
        raise CheckpointError(
            f"{prefix}*checkpoint*.pt in {directory}",
            got=[p.name for p in matches] or "no file",
            expected="exactly one file",
            fix="fetch it, or move the others away",
        )
    # Only torch's newer format, a zip file, can be mapped.
    mapped = zipfile.is_zipfile(matches[0])
    try:
        state: dict[str, Tensor] = torch.load(matches[0], map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as e:
        raise CheckpointError(
            str(matches[0]),
            got=f"{type(e).__name__}: {str(e).splitlines()[0]}",
            expected="a weights-only torch pickle",
            fix="fetch it again",
        ) from e
    return state


def _check_shape(name: str, got: tuple[int, ...], expected: Shapes, optional: Shapes) -> None:
    shape = expected.get(name, optional.get(name))
    if shape is None:
        raise CheckpointError(
            f"tensor '{name}'",
            got="not part of this model",
            expected="only the keys of spec §6.2",
            fix="check that config.json belongs to these weights",
        )
    if got != shape:
        raise CheckpointError(
            f"tensor '{name}'",
            got=got,
            expected=str(shape),
            fix="check that config.json belongs to these weights",
        )


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:_MAX_NAMED])
    return shown if len(names) <= _MAX_NAMED else f"{shown} and {len(names) - _MAX_NAMED} more"
