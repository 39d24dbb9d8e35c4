"""A model of a given size with random weights, exported and loaded for as long as it is needed."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from lightvla_ros.app import LoadedEngine, load_engine
from lightvla_ros.backends.export import export_bundle
from lightvla_ros.model import LightVla, ModelConfig, VisionTowerConfig
from lightvla_ros.model.policy_config import policy_config_for

_HEAD_DIM = 64
# Llama's MLP is 2.7 times as wide as its tokens.
_MLP_RATIO = 11008 / 4096


@contextmanager
def random_bundle(width: int, layers: int, *, num_threads: int | None) -> Iterator[LoadedEngine]:
    """Yield an ONNX Runtime engine of `layers` decoder layers of `width`, with 2 x 64 visual tokens."""
    torch.manual_seed(0)
    config = ModelConfig(
        towers={"featurizer": VisionTowerConfig(embed_dim=256, depth=7, num_heads=4, mlp_dim=1024)},
        image_size=112,
        hidden_size=width,
        intermediate_size=round(width * _MLP_RATIO / _HEAD_DIM) * _HEAD_DIM,
        num_layers=layers,
        num_heads=width // _HEAD_DIM,
        vocab_size=1024,
        action_prefix_id=3,
    )
    quantiles = {"q01": [-1.0] * 7, "q99": [1.0] * 7}
    proprio = {"q01": [-1.0] * 8, "q99": [1.0] * 8}
    policy = policy_config_for(config, {"random": {"action": quantiles, "proprio": proprio}})
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch) / f"random-{width}x{layers}"
        export_bundle(LightVla(config), policy, directory)
        loaded = load_engine(directory, "onnxruntime", num_threads=num_threads)
        try:
            yield loaded
        finally:
            loaded.engine.close()
