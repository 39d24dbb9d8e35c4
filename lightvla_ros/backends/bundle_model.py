"""Read the network back from a bundle: its ONNX parts hold every weight under its own name."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lightvla_ros.backends.manifest import EXPORT_AGAIN, PARTS, Manifest
from lightvla_ros.core.errors import BundleError, EngineError
from lightvla_ros.model.lightvla import LightVla
from lightvla_ros.model.stored_model import StoredModel, blocks, model_shapes

EMBEDDING = "language_model.model.embed_tokens.weight"
# The exported modules hold the network as their attribute `model`.
PREFIX = "model."

_NAME_SOURCE = "name the checkpoint or float32 bundle it was made from: `lightvla verify --checkpoint SOURCE`"


def weights_hash(
    model: LightVla | Mapping[str, Tensor], progress: Callable[[int], None] | None = None
) -> str:
    """Hash names, shapes and float32 values of all weights: the same for every file layout and dtype.

    Args:
        model: the network, or its weights by state-dict name, read one after the other.
        progress: called with the number of weights hashed so far.
    """
    weights = model.state_dict() if isinstance(model, LightVla) else model
    digest, done = hashlib.sha256(), 0
    for name in sorted(weights):
        weight = weights[name]
        digest.update(f"{name} {tuple(weight.shape)}\n".encode())
        for block in blocks(weight):
            digest.update(block.to("cpu", torch.float32).numpy().data)
        done += weight.numel()
        if progress is not None:
            progress(done)
    return digest.hexdigest()


def model_from_bundle(directory: Path, manifest: Manifest) -> LightVla:
    """Load the float32 network whose weights a bundle's parts hold.

    Raises:
        BundleError: as `open_bundle`.
    """
    return open_bundle(directory, manifest).load()


def open_bundle(directory: Path, manifest: Manifest) -> StoredModel:
    """Open the network whose weights a bundle's parts hold; they stay in their files.

    Raises:
        BundleError: a file differs from the manifest, a weight is missing, or the weights are not those
            the manifest was written for: others, rounded to half precision, or quantised.
    """
    if manifest.quantization is not None:
        raise _not_the_weights(directory, f"weights quantised to {manifest.quantization}", _NAME_SOURCE)
    manifest.check_files(directory)
    weights = _BundleWeights(directory, manifest)
    if (digest := weights_hash(weights)) != manifest.checkpoint_hash:
        if manifest.precision != "float32":
            raise _not_the_weights(directory, f"weights rounded to {manifest.precision}", _NAME_SOURCE)
        raise _not_the_weights(directory, f"weights with hash {digest[:12]}...", EXPORT_AGAIN)
    return StoredModel(config=manifest.model, weights=weights, weights_hash=digest)


class _BundleWeights(Mapping[str, Tensor]):
    """State-dict name -> weight in the dtype of the bundle."""

    def __init__(self, directory: Path, manifest: Manifest) -> None:
        expected = model_shapes(manifest.model)
        self._values: dict[str, Any] = {}
        for part in PARTS:
            for name, value in _initializers(directory, manifest, part):
                # The bodies hold an embedding table of their own, cut to the special rows.
                if expected.get(name) == tuple(value.shape) and (name != EMBEDDING or part == "prompt"):
                    self._values[name] = value
        missing = sorted(expected.keys() - self._values.keys())
        if missing:
            raise _not_the_weights(directory, f"no weights {missing[:8]}", EXPORT_AGAIN)

    def __getitem__(self, name: str) -> Tensor:
        array = np.array(self._values[name].numpy())
        dtype: torch.dtype = getattr(torch, str(array.dtype))
        # torch reads none of NumPy's extension types; bytes mean the same to both.
        return torch.frombuffer(array, dtype=dtype).reshape(array.shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


def _initializers(directory: Path, manifest: Manifest, part: str) -> Iterator[tuple[str, Any]]:
    try:
        from onnxscript import ir
    except ImportError as e:
        raise EngineError(
            "torch model of a bundle", got=str(e), expected="onnx", fix="pip install 'lightvla_ros[export]'"
        ) from e
    files = {file.name for file in manifest.parts[part].files}
    for name, value in ir.load(manifest.part_path(directory, part)).graph.initializers.items():
        tensor = value.const_value
        if not name.startswith(PREFIX):
            continue
        if isinstance(tensor, ir.ExternalTensor) and str(tensor.location) not in files:
            got = f"weights in {tensor.location}, a file of no part"
            raise _not_the_weights(directory, got, EXPORT_AGAIN)
        yield name.removeprefix(PREFIX), tensor


def _not_the_weights(directory: Path, got: str, fix: str) -> BundleError:
    return BundleError(
        f"ONNX parts in {directory}", got=got, expected="the weights the manifest was written for", fix=fix
    )
