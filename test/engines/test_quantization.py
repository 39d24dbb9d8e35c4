"""Quantised copies of a bundle: they run, are smaller, near the original, and do not pass as it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from test_engine_commands import command

from lightvla_ros.backends.bundle_model import open_bundle
from lightvla_ros.backends.export import export_bundle
from lightvla_ros.backends.loading import load_engine
from lightvla_ros.backends.manifest import Manifest
from lightvla_ros.backends.quantization import check_scheme, quantize_bundle
from lightvla_ros.commands import export
from lightvla_ros.commands._inputs import random_samples, world_samples
from lightvla_ros.core.errors import BundleError, ConfigError
from lightvla_ros.core.paths import engine_directory
from lightvla_ros.model import LightVla
from lightvla_ros.model.policy_config import policy_config_for

MIN_COSINE = {"int8": 0.99, "int4": 0.97}
OPERATOR = {"int8": "MatMulInteger", "int4": "MatMulNBits"}


@pytest.fixture(scope="module", params=MIN_COSINE)
def quantized(
    request: pytest.FixtureRequest, tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    directory = tmp_path_factory.mktemp("quantized") / request.param
    quantize_bundle(tiny_bundle, directory, request.param)
    return directory


def test_the_copy_says_what_it_is_and_holds_integer_weights(quantized: Path, tiny_bundle: Path) -> None:
    manifest, original = Manifest.read(quantized), Manifest.read(tiny_bundle)
    assert (manifest.quantization, manifest.precision) == (quantized.name, "float32")
    assert manifest.checkpoint_hash == original.checkpoint_hash
    assert manifest.content_hash != original.content_hash
    for part in ("vision", "decoder"):
        nodes = onnx.load(quantized / f"{part}.onnx").graph.node
        kinds = [node.op_type for node in nodes]
        # Products of activations with each other, in attention, are none of the quantiser's business.
        weights = {i.name for i in onnx.load(quantized / f"{part}.onnx").graph.initializer}
        floating = [n for n in nodes if n.op_type == "MatMul" and n.input[1] in weights]
        assert OPERATOR[quantized.name] in kinds
        assert not floating
    for part in ("prompt", "pruner"):
        assert (quantized / f"{part}.onnx").read_bytes() == (tiny_bundle / f"{part}.onnx").read_bytes()
    assert sorted(path.name for path in quantized.iterdir()) == sorted(p.name for p in tiny_bundle.iterdir())


@pytest.mark.parametrize("scheme", MIN_COSINE)
def test_a_quantized_trained_policy_computes_about_the_same(scheme: str, tmp_path: Path) -> None:
    mini = engine_directory("mini")
    quantize_bundle(mini, tmp_path / scheme, scheme)
    exact = load_engine(mini, "onnxruntime", num_threads=1)
    rough = load_engine(tmp_path / scheme, "onnxruntime", num_threads=1).engine
    # Frames it was trained for: what it makes of noise means nothing and jumps at the least change.
    for sample in world_samples(exact, 6, seed=5):
        actions = []
        retained = None
        for engine in (exact.engine, rough):
            patches = engine.encode_images(sample.pixel_values)
            prompt = engine.encode_prompt(sample.input_ids)
            if retained is None:  # both decode the same tokens: a near tie may fall either way
                retained = engine.prune(patches, prompt, sample.proprio)
            actions.append(engine.decode(patches, retained, prompt, sample.proprio).ravel())
        a, b = actions
        assert a @ b / (np.linalg.norm(a) * np.linalg.norm(b)) > MIN_COSINE[scheme]
        assert not np.array_equal(a, b)


def test_quantized_weights_do_not_pass_as_the_reference(quantized: Path) -> None:
    with pytest.raises(BundleError, match=r"quantised to int.*--checkpoint"):
        open_bundle(quantized, Manifest.read(quantized))


def test_quantizing_twice_is_refused(quantized: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="quantised"):
        quantize_bundle(quantized, tmp_path / "again", "int8")
    assert list(tmp_path.iterdir()) == []


def test_a_scheme_or_precision_nobody_quantizes_is_refused(tiny_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="int4"):
        quantize_bundle(tiny_bundle, tmp_path / "new", "int3")
    with pytest.raises(ConfigError, match="float32"):
        check_scheme("int8", "float16")
    assert list(tmp_path.iterdir()) == []


def test_weights_beside_the_graph_stay_beside_it(tiny_model: LightVla, tmp_path: Path) -> None:
    policy = policy_config_for(tiny_model.config, tiny_model.statistics)
    export_bundle(tiny_model, policy, tmp_path / "beside", inline_bytes=0)
    for scheme in MIN_COSINE:
        manifest = quantize_bundle(tmp_path / "beside", tmp_path / scheme, scheme)
        names = [file.name for file in manifest.parts["decoder"].files]
        assert names == ["decoder.onnx", "decoder.onnx.data"]
        pixels = random_samples(load_engine(tmp_path / scheme, "onnxruntime"), 1, seed=6)[0].pixel_values
        patches = load_engine(tmp_path / scheme, "onnxruntime").engine.encode_images(pixels)
        with torch.inference_mode():
            expected = tiny_model.encode_images(torch.from_numpy(pixels)).numpy()
        np.testing.assert_allclose(np.asarray(patches), expected, atol=0.5 * np.abs(expected).max())


def test_the_command_keeps_a_quantized_bundle_that_verifies(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(export, "mini", "--out", tmp_path / "int8", "--quant", "int8") == 0
    assert "with the weights of mini\n" in capsys.readouterr().out
    assert Manifest.read(tmp_path / "int8").quantization == "int8"
    assert [path.name for path in tmp_path.iterdir()] == ["int8"]


def test_the_command_keeps_one_that_fails_only_when_told_to(tmp_path: Path) -> None:
    arguments = ("mini", "--out", tmp_path / "int4", "--quant", "int4")
    with pytest.raises(BundleError, match=r"beyond the limits.*nothing was written"):
        command(export, *arguments)
    assert list(tmp_path.iterdir()) == []
    assert command(export, *arguments, "--no-verify") == 0
    assert Manifest.read(tmp_path / "int4").quantization == "int4"
