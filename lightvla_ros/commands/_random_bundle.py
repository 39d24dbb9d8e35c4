"""A model of a given size with random weights, on every backend for as long as it is needed."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from lightvla_ros.backends.export import export_bundle
from lightvla_ros.backends.length_buckets import default_prompt_buckets, default_retained_buckets
from lightvla_ros.backends.loading import LoadedEngine, load_engine
from lightvla_ros.backends.torch_device import torch_device
from lightvla_ros.backends.torch_graph_engine import torch_engine
from lightvla_ros.backends.torch_preprocess import preprocessor_for
from lightvla_ros.commands._bench_engines import TORCH_BACKENDS, EngineChoice, reference_style
from lightvla_ros.commands._random_size import RandomSize
from lightvla_ros.core.policy_config import PolicyConfig
from lightvla_ros.model import LightVla, ModelConfig, VisionTowerConfig
from lightvla_ros.model.config import DINOV2_LARGE, SIGLIP_SO400M
from lightvla_ros.model.policy_config import policy_config_for

# The published model, which the others are scaled from (spec §2.1, §3.4).
_WIDTH, _LAYERS, _HEAD_DIM, _MLP_RATIO, _VOCABULARY = 4096, 32, 128, 11008 / 4096, 32064
_PATCH_SIZE = 14


def random_model_config(size: RandomSize) -> ModelConfig:
    """Scale the published model so that the stages' shares of the operations stay about the same.

    Widths go with the decoder's, depths of the towers and the vocabulary with its layers too: the
    vocabulary is only there for the published code's `lm_head`.
    """
    width, layers = size.width, size.layers
    return ModelConfig(
        towers={
            "featurizer": _scaled(DINOV2_LARGE, size),
            "fused_featurizer": _scaled(SIGLIP_SO400M, size),
        },
        image_size=size.grid * _PATCH_SIZE,
        hidden_size=width,
        intermediate_size=round(width * _MLP_RATIO),
        num_layers=layers,
        num_heads=width // _HEAD_DIM,
        vocab_size=max(16, round(_VOCABULARY * (width / _WIDTH) * (layers / _LAYERS))),
        action_prefix_id=3,
    )


def _scaled(tower: VisionTowerConfig, size: RandomSize) -> VisionTowerConfig:
    factor = size.width / _WIDTH
    return replace(
        tower,
        embed_dim=round(tower.embed_dim * factor),
        depth=max(2, round(tower.depth * size.layers / _LAYERS)),
        num_heads=round(tower.num_heads * factor),
        mlp_dim=round(tower.mlp_dim * factor),
    )


class RandomSource:
    """Engines of a random model; it becomes a bundle when a backend first needs one."""

    def __init__(self, size: RandomSize, choice: EngineChoice, scratch: Path) -> None:
        self.name = f"random-{size}"
        self._choice = choice
        self._directory = scratch / self.name
        self._model = _random_model(random_model_config(size), choice.device)
        self._torch: LoadedEngine | None = None

    def load(self, backend: str) -> LoadedEngine:
        """Load one engine."""
        if backend not in TORCH_BACKENDS:
            if not self._directory.exists():
                export_bundle(copy.deepcopy(self._model).float().cpu(), self._policy(), self._directory)
            return load_engine(self._directory, backend, num_threads=self._choice.num_threads)
        self._torch = self._torch or self._torch_engine()
        return self._torch if backend == "torch" else reference_style(self._torch)

    def _torch_engine(self) -> LoadedEngine:
        torch.set_num_threads(self._choice.num_threads)
        config, policy = self._model.config, self._policy()
        engine = torch_engine(
            self._model,
            default_retained_buckets(config.num_patches),
            default_prompt_buckets(policy.max_prompt_tokens - 1),
        )
        return LoadedEngine(
            engine=engine,
            name=self.name,
            backend="torch",
            model=config,
            policy=policy,
            tokenizer=None,
            make_preprocessor=preprocessor_for(self._choice.device),
        )

    def _policy(self) -> PolicyConfig:
        quantiles = {"q01": [-1.0] * 7, "q99": [1.0] * 7}
        proprio = {"q01": [-1.0] * 8, "q99": [1.0] * 8}
        return policy_config_for(self._model.config, {"random": {"action": quantiles, "proprio": proprio}})


@contextmanager
def random_source(size: RandomSize, choice: EngineChoice) -> Iterator[RandomSource]:
    """Yield the engines' source; its files go with the context.

    Raises:
        EngineError: the device asked for is not there.
    """
    with tempfile.TemporaryDirectory() as scratch:
        yield RandomSource(size, choice, Path(scratch))


def _random_model(config: ModelConfig, device: str) -> LightVla:
    """Make the weights where and as they will be used: float32 on a CPU, bfloat16 on a GPU."""
    on_gpu = torch_device(device) == "cuda"
    torch.manual_seed(0)
    standard = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16 if on_gpu else torch.float32)
    try:
        with torch.device("cuda" if on_gpu else "cpu"):
            return LightVla(config).eval().requires_grad_(False)
    finally:
        torch.set_default_dtype(standard)
