"""Bundles with learned queries: every engine runs them as torch does, and every tool takes them."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from tensorrt_cases import EngineCases, Rig
from test_engine_commands import command
from test_tensorrt_engine import Workshop

from lightvla_ros.backends.bundle_model import model_from_bundle
from lightvla_ros.backends.comparison import EngineSample, InspectableEngine, compare
from lightvla_ros.backends.export import export_bundle
from lightvla_ros.backends.flops import stage_bytes, stage_flops, stage_weights
from lightvla_ros.backends.loading import LoadedEngine, load_engine
from lightvla_ros.backends.manifest import Manifest
from lightvla_ros.backends.quantization import quantize_bundle
from lightvla_ros.backends.thresholds import load_thresholds
from lightvla_ros.backends.torch_engine import TorchEngine
from lightvla_ros.backends.torch_graph_engine import TorchGraphEngine
from lightvla_ros.backends.torch_reference_style import ReferenceStyleEngine
from lightvla_ros.commands import export, verify
from lightvla_ros.commands._inputs import random_samples
from lightvla_ros.core.errors import EngineError
from lightvla_ros.core.paths import engine_directory
from lightvla_ros.model import LightVla, PrunerConfig, load_checkpoint, save_checkpoint
from lightvla_ros.model.config import ModelConfig

KINDS = ("vision_queries", "decoder_queries")
FIRST_LAYER = "model.language_model.model.layers.0"
OWN_WEIGHTS = {
    "vision_queries": {"model.pruner.queries"},
    "decoder_queries": {
        "model.pruner.queries",
        f"{FIRST_LAYER}.input_layernorm.weight",
        f"{FIRST_LAYER}.self_attn.k_proj.weight",
    },
}
NUM_QUERIES = 12


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def model(kind: str, tiny_model: LightVla) -> LightVla:
    model = copy.deepcopy(tiny_model)
    torch.manual_seed(0)
    model.replace_pruner(PrunerConfig(kind=kind, num_queries=NUM_QUERIES))
    return model.requires_grad_(False)


@pytest.fixture(scope="module")
def bundle(model: LightVla, tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A float32 bundle; read only."""
    return exported(model, tiny_bundle, tmp_path_factory.mktemp("engines") / "learned")


@pytest.fixture(scope="module")
def samples(bundle: Path) -> list[EngineSample]:
    return random_samples(load_engine(bundle, num_threads=1), 4, seed=1)


def exported(model: LightVla, like: Path, target: Path, precision: str = "float32") -> Path:
    export_bundle(
        model,
        Manifest.read(like).policy,
        target,
        precision=precision,
        tokenizer=(like / "tokenizer.json").read_text(encoding="utf-8"),
    )
    return target


def weight_names(path: Path) -> set[str]:
    names = {tensor.name for tensor in onnx.load(path).graph.initializer}
    return {name for name in names if name.startswith("model.")}


# -- files -------------------------------------------------------------------------------------------------


def test_a_checkpoint_with_learned_queries_loads_as_it_was_saved(model: LightVla, tmp_path: Path) -> None:
    save_checkpoint(model, tmp_path)
    loaded = load_checkpoint(tmp_path)
    assert loaded.config == model.config
    assert loaded.pruner.queries.equal(model.pruner.queries)


def test_the_pruner_part_reads_only_patches_and_holds_its_own_weights(bundle: Path, kind: str) -> None:
    part = Manifest.read(bundle).parts["pruner"]
    assert [spec.name for spec in part.inputs] == ["patches"]
    assert [spec.name for spec in part.outputs] == ["order", "count"]
    assert weight_names(bundle / "pruner.onnx") == OWN_WEIGHTS[kind]


def test_the_manifest_says_what_prunes_and_the_bundle_gives_the_network_back(
    bundle: Path, model: LightVla, kind: str
) -> None:
    manifest = Manifest.read(bundle)
    assert manifest.model.pruner == PrunerConfig(kind=kind, num_queries=NUM_QUERIES)
    again = model_from_bundle(bundle, manifest)
    for name, weight in model.state_dict().items():
        assert again.state_dict()[name].equal(weight), name


def test_bundles_from_before_there_was_a_choice_have_task_queries() -> None:
    content = Manifest.read(engine_directory("mini")).to_mapping()
    assert content["model"].pop("pruner")["kind"] == "task_queries"
    assert Manifest.from_mapping(content).model.pruner == PrunerConfig()


# -- engines -----------------------------------------------------------------------------------------------


@pytest.fixture(params=["torch", "onnxruntime", "padded torch"])
def loaded(
    request: pytest.FixtureRequest, bundle: Path, model: LightVla
) -> Iterator[LoadedEngine | TorchGraphEngine]:
    if request.param == "padded torch":
        engine: InspectableEngine = TorchGraphEngine(
            copy.deepcopy(model), retained_buckets=(4, 16, 32), prompt_buckets=(16, 31), capture=False
        )
    else:
        engine = load_engine(bundle, request.param, num_threads=1).engine
    yield engine
    engine.close()


def test_every_engine_retains_what_torch_retains_and_acts_alike(
    loaded: InspectableEngine, model: LightVla, samples: list[EngineSample]
) -> None:
    for sample in samples:
        comparison = compare(TorchEngine(model), loaded, sample)
        assert 1 < comparison.retained <= NUM_QUERIES
        assert comparison.kept_iou == 1.0
        assert comparison.max_abs_error < 1e-4
        assert comparison.end_to_end.max_abs_error < 1e-4
        assert not comparison.non_finite


def test_the_task_does_not_change_what_is_retained(
    loaded: InspectableEngine, samples: list[EngineSample]
) -> None:
    patches = loaded.encode_images(samples[0].pixel_values)
    prompts = [loaded.encode_prompt(ids) for ids in (np.array([1, 5, 6]), np.array([1, 9, 9, 20, 21]))]
    first, second = (loaded.prune(patches, prompt, samples[0].proprio) for prompt in prompts)
    np.testing.assert_array_equal(first, second)


@pytest.fixture(scope="module")
def rig(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    workshop = Workshop(bundle, tmp_path_factory.mktemp("plans"))
    yield workshop.rig()
    workshop.close()


class TestOnTheDouble(EngineCases):
    """The TensorRT engine's contract, on doubles of CUDA and TensorRT."""

    def test_one_graph_prunes_for_every_prompt_length(self, rig: Rig) -> None:
        prompts, retained = len(rig.manifest.prompt_buckets), len(rig.manifest.length_buckets)
        assert rig.engine.statistics.num_graphs == 1 + 1 + prompts * retained


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_tensorrt_rtx_builds_the_pruner(
    model: LightVla, bundle: Path, precision: str, tmp_path: Path
) -> None:
    pytest.importorskip("tensorrt_rtx")
    from lightvla_ros.backends.tensorrt.api import load
    from lightvla_ros.backends.tensorrt.network import PlanBuilder

    directory = exported(model, bundle, tmp_path / precision, precision)
    inputs = Manifest.read(directory).parts["pruner"].inputs
    plan, num_layers = PlanBuilder(load("tensorrt-rtx"), "sm_86").build(
        directory / "pruner.onnx", inputs, [{}]
    )
    assert num_layers > 0
    assert memoryview(plan).nbytes > 0


def test_the_published_code_has_nothing_to_compare_with(model: LightVla, kind: str) -> None:
    with pytest.raises(EngineError, match=f"{kind}.*task_queries"):
        ReferenceStyleEngine(model)


# -- tools -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["torch", "onnxruntime"])
def test_a_bundle_is_verified(bundle: Path, backend: str) -> None:
    assert command(verify, bundle, "--backend", backend, "--samples", 4) == 0


def test_a_bundle_is_exported_again_in_half_precision_and_verified(bundle: Path, tmp_path: Path) -> None:
    half = tmp_path / "half"
    assert command(export, bundle, "--out", half, "--precision", "fp16") == 0
    assert Manifest.read(half).model == Manifest.read(bundle).model
    assert command(verify, half, "--backend", "onnxruntime", "--checkpoint", bundle, "--samples", 4) == 0
    assert command(verify, half, "--widen", "--checkpoint", bundle, "--samples", 4) == 0


def test_half_precision_retains_what_float32_does_but_for_ties(kind: str) -> None:
    mini = engine_directory("mini")
    model = model_from_bundle(mini, Manifest.read(mini))
    torch.manual_seed(0)
    model.replace_pruner(PrunerConfig(kind=kind))
    exact, half = TorchEngine(model), TorchEngine(copy.deepcopy(model).bfloat16())
    tie_margin = load_thresholds("bfloat16").tie_margin
    for sample in random_samples(load_engine(mini, num_threads=1), 8, seed=0):
        comparison = compare(exact, half, sample)
        assert comparison.kept_iou_apart_from_ties(tie_margin) == 1.0


@pytest.mark.parametrize("scheme", ["int8", "int4"])
def test_a_quantized_bundle_keeps_its_pruner(
    bundle: Path, scheme: str, tmp_path: Path, samples: list[EngineSample]
) -> None:
    quantize_bundle(bundle, tmp_path / scheme, scheme)
    assert (tmp_path / scheme / "pruner.onnx").read_bytes() == (bundle / "pruner.onnx").read_bytes()
    exact, rough = (load_engine(path, "onnxruntime").engine for path in (bundle, tmp_path / scheme))
    for sample in samples:
        patches = exact.encode_images(sample.pixel_values)
        kept = [
            engine.prune(patches, engine.encode_prompt(sample.input_ids), sample.proprio)
            for engine in (exact, rough)
        ]
        np.testing.assert_array_equal(*kept)


@pytest.mark.parametrize("initialization", ["normal", "orthogonal"])
def test_a_trained_policy_with_fresh_queries_retains_a_spread_of_tokens(
    kind: str, initialization: str
) -> None:
    mini = engine_directory("mini")
    model = model_from_bundle(mini, Manifest.read(mini))
    torch.manual_seed(0)
    model.replace_pruner(PrunerConfig(kind=kind, initialization=initialization))
    engine = TorchEngine(model)
    for sample in random_samples(load_engine(mini, num_threads=1), 4, seed=2):
        prompt = engine.encode_prompt(sample.input_ids)
        retained = engine.prune(engine.encode_images(sample.pixel_values), prompt, sample.proprio)
        assert model.num_queries // 2 <= len(retained) <= model.num_queries


# -- counts ------------------------------------------------------------------------------------------------


def test_the_weights_of_the_pruner_are_those_its_part_holds(bundle: Path, model: LightVla) -> None:
    path = bundle / "pruner.onnx"
    held = sum(
        int(np.prod(tensor.dims))
        for tensor in onnx.load(path).graph.initializer
        if tensor.name.startswith("model.")
    )
    assert stage_weights(model.config).pruner == held


@pytest.mark.parametrize(
    ("kind", "operations", "weights"),
    [
        ("vision_queries", 2 * 128 * 512 * 4096, 128 * 4096),
        ("decoder_queries", 2 * 512 * 4096 * (128 + 4096), 128 * 4096 + 4096 + 4096**2),
    ],
)
def test_the_full_models_pruner_costs_its_products(kind: str, operations: int, weights: int) -> None:
    config = ModelConfig(pruner=PrunerConfig(kind=kind))
    flops = stage_flops(config, 78, 28)
    assert flops.pruner == operations == stage_flops(config, 78, 28, reference=True).pruner
    assert flops._replace(pruner=0) == stage_flops(ModelConfig(), 78, 28)._replace(pruner=0)
    moved = stage_bytes(config, 78, 28, bytes_per_number=2)
    assert moved.pruner == 2 * (weights + 512 * 4096)
