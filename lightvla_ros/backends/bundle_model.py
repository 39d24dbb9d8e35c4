"""Rebuild the torch model from a bundle: its ONNX parts hold every weight under its own name."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from lightvla_ros.backends.manifest import PARTS, Manifest
from lightvla_ros.core.errors import BundleError, EngineError
from lightvla_ros.model.lightvla import LightVla

EMBEDDING = "language_model.model.embed_tokens.weight"
# The exported modules hold the network as their attribute `model`.
_PREFIX = "model."


def weights_hash(model: LightVla) -> str:
    """Hash names, shapes and float32 values of all weights: the same for every file layout and dtype."""
    digest = hashlib.sha256()
    for name, weight in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(weight.shape)}\n".encode())
        digest.update(weight.detach().to("cpu", torch.float32).contiguous().numpy().data)
    return digest.hexdigest()


def model_from_bundle(directory: Path, manifest: Manifest) -> LightVla:
    """Load the float32 network whose weights a bundle's parts hold.

    Raises:
        BundleError: a file differs from the manifest, a weight is missing, or the weights are others
            than those the manifest was written for.
    """
    manifest.check_files(directory)
    with torch.device("meta"):
        model = LightVla(manifest.model)
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    state: dict[str, Tensor] = {}
    for part in PARTS:
        for name, tensor in _weights(manifest.part_path(directory, part)):
            # The bodies hold an embedding table of their own, cut to the special rows.
            if expected.get(name) == tuple(tensor.shape) and (name != EMBEDDING or part == "prompt"):
                state[name] = tensor
    missing = sorted(expected.keys() - state.keys())
    if missing:
        raise _not_the_weights(directory, f"no weights {missing[:8]}")
    model.load_state_dict(state, assign=True)
    if (digest := weights_hash(model)) != manifest.checkpoint_hash:
        raise _not_the_weights(directory, f"weights with hash {digest[:12]}...")
    return model.eval()


def _weights(path: Path) -> Iterator[tuple[str, Tensor]]:
    try:
        import onnx
        from onnx import numpy_helper
    except ImportError as e:
        raise EngineError(
            "torch model of a bundle", got=str(e), expected="onnx", fix="pip install 'lightvla_ros[torch]'"
        ) from e
    for initializer in onnx.load(path).graph.initializer:
        if initializer.name.startswith(_PREFIX):
            # A copy, because the array is a view of the graph's bytes.
            array = numpy_helper.to_array(initializer).copy()
            yield initializer.name.removeprefix(_PREFIX), torch.from_numpy(array)


def _not_the_weights(directory: Path, got: str) -> BundleError:
    return BundleError(
        f"ONNX parts in {directory}",
        got=got,
        expected="the weights the manifest was written for",
        fix="export the checkpoint again with `lightvla export`",
    )
