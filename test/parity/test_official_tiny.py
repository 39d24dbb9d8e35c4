"""The policy against the reference implementation's outputs for three observations (tiny random weights)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file

from lightvla_ros.backends.export import export_bundle
from lightvla_ros.backends.manifest import Manifest
from lightvla_ros.backends.onnxruntime_engine import OrtEngine
from lightvla_ros.model import LightVla, TokenPruner, load_checkpoint
from lightvla_ros.model.policy_config import read_policy_config

Arrays = Mapping[str, NDArray[Any]]
CASES = (0, 1, 2)
KEY = "libero_object"
ACTION_PREFIX = 29871


@pytest.fixture(scope="module")
def directory(golden_dir: Path) -> Path:
    return golden_dir / "official_tiny"


@pytest.fixture(scope="module")
def golden(directory: Path) -> Arrays:
    return load_file(directory / "cases.safetensors")


@pytest.fixture(scope="module")
def model(directory: Path) -> LightVla:
    return load_checkpoint(directory)


@pytest.fixture(scope="module")
def engine(directory: Path, model: LightVla, tmp_path_factory: pytest.TempPathFactory) -> OrtEngine:
    bundle = tmp_path_factory.mktemp("parity") / "official_tiny"
    export_bundle(model, read_policy_config(directory, model.config, model.statistics), bundle)
    return OrtEngine(bundle, Manifest.read(bundle), num_threads=1)


def case(golden: Arrays, number: int) -> Arrays:
    prefix = f"case{number}/"
    return {name.removeprefix(prefix): array for name, array in golden.items() if name.startswith(prefix)}


def relative_error(value: NDArray[Any], expected: NDArray[Any]) -> float:
    assert value.shape == expected.shape
    return float(np.abs(value - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("number", CASES)
def test_torch_gives_the_references_outputs(model: LightVla, golden: Arrays, number: int) -> None:
    expected = case(golden, number)
    inputs = [torch.from_numpy(expected[name]) for name in ("pixel_values", "input_ids", "proprio")]
    with torch.inference_mode():
        output = model(inputs[0].float(), *inputs[1:])
    np.testing.assert_array_equal(output.keep_mask.numpy(), expected["keep_mask"])
    for name in ("patches", "last_hidden", "action_hidden", "normalized_actions"):
        assert relative_error(getattr(output, name).numpy(), expected[name]) < 1e-4, name
    actions = model.unnormalize(output.normalized_actions, KEY)
    assert relative_error(actions, expected["actions"]) < 1e-4


@pytest.mark.parametrize("number", CASES)
def test_the_pruner_retains_the_references_tokens(golden: Arrays, number: int) -> None:
    expected = case(golden, number)
    patches, task_tokens = (torch.from_numpy(expected[name])[None] for name in ("patches", "prompt_tokens"))
    np.testing.assert_array_equal(TokenPruner()(patches, task_tokens)[0].numpy(), expected["keep_mask"])


@pytest.mark.parametrize("number", CASES)
def test_onnxruntime_gives_the_references_outputs(
    engine: OrtEngine, model: LightVla, golden: Arrays, number: int
) -> None:
    expected = case(golden, number)
    input_ids = expected["input_ids"][0]
    prompt = engine.encode_prompt(input_ids[:-1] if input_ids[-1] == ACTION_PREFIX else input_ids)
    patches = engine.encode_images(expected["pixel_values"].astype(np.float32))
    retained = engine.prune(patches, prompt, expected["proprio"])
    normalized = engine.decode(patches, retained, prompt, expected["proprio"])
    assert relative_error(patches[0], expected["patches"]) < 1e-3
    np.testing.assert_array_equal(retained, np.flatnonzero(expected["keep_mask"]))
    assert relative_error(normalized, expected["normalized_actions"]) < 1e-3
    actions = model.unnormalize(torch.from_numpy(normalized), KEY)
    assert relative_error(actions, expected["actions"]) < 1e-3


def test_training_selection_and_its_gradients_are_the_references(golden: Arrays) -> None:
    train = {name.removeprefix("train/"): torch.from_numpy(array) for name, array in golden.items()}
    patches = train["patches"][None].requires_grad_()
    task_tokens = train["prompt_tokens"][None].requires_grad_()
    noise = train["uniform_noise"].float()[None]
    indices, pruned = TokenPruner.select_soft(patches, task_tokens, 0.7, noise)
    (pruned[0] * train["loss_weight"]).sum().backward()
    assert indices[0].equal(train["indices"])
    assert relative_error(pruned[0].detach().numpy(), train["pruned"].numpy()) < 1e-4
    assert relative_error(patches.grad[0].numpy(), train["grad_patches"].numpy()) < 1e-4
    assert relative_error(task_tokens.grad[0].numpy(), train["grad_prompt_tokens"].numpy()) < 1e-4
