"""Exports in every precision, from every source; what an interrupt leaves, what is refused."""

from __future__ import annotations

import errno
import fcntl
import shutil
import weakref
from collections import namedtuple
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import shape_inference
from safetensors.torch import load_file, save_file
from test_engine_commands import command, last_json
from torch import Tensor

from lightvla_ros.backends.bundle_model import model_from_bundle, open_bundle, weights_hash
from lightvla_ros.backends.export import export_bundle
from lightvla_ros.backends.loading import load_engine
from lightvla_ros.backends.manifest import PARTS, Manifest, describe_file
from lightvla_ros.commands import export
from lightvla_ros.commands._inputs import random_samples
from lightvla_ros.core.errors import BundleError, CheckpointError, ConfigError, LightVlaError, SpecError
from lightvla_ros.core.policy_config import PolicyConfig
from lightvla_ros.model import LightVla, ModelConfig, save_checkpoint
from lightvla_ros.model.checkpoint import open_checkpoint
from lightvla_ros.model.stored_model import StoredModel

HALF = {"bfloat16": onnx.TensorProto.BFLOAT16, "float16": onnx.TensorProto.FLOAT16}


@pytest.fixture(scope="module")
def policy(tiny_bundle: Path) -> PolicyConfig:
    return Manifest.read(tiny_bundle).policy


@pytest.fixture(scope="module")
def half_bundles(
    tiny_model: LightVla, policy: PolicyConfig, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """A bundle of the tiny model in each half precision; read only."""
    directory = tmp_path_factory.mktemp("half")
    for precision in HALF:
        export_bundle(tiny_model, policy, directory / precision, precision=precision)
    return {precision: directory / precision for precision in HALF}


@pytest.fixture(params=HALF)
def half_bundle(request: pytest.FixtureRequest, half_bundles: dict[str, Path]) -> Path:
    return half_bundles[request.param]


def contents(bundle: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in bundle.iterdir()}


def element_types(bundle: Path, part: str) -> tuple[onnx.GraphProto, dict[str, int]]:
    """Return a part's graph and the element type of each of its values."""
    graph = shape_inference.infer_shapes(onnx.load(bundle / f"{part}.onnx")).graph
    values = (*graph.input, *graph.output, *graph.value_info)
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    return graph, types | {tensor.name: tensor.data_type for tensor in graph.initializer}


# -- precision ---------------------------------------------------------------------------------------------


def test_a_half_precision_bundle_has_half_weights_and_float32_at_the_host(half_bundle: Path) -> None:
    manifest = Manifest.read(half_bundle)
    assert manifest.precision == half_bundle.name
    dtypes = {
        (part, spec.name): spec.dtype
        for part, content in manifest.parts.items()
        for spec in (*content.inputs, *content.outputs)
    }
    device = {name for (_, name), dtype in dtypes.items() if dtype == half_bundle.name}
    host = {name for (_, name), dtype in dtypes.items() if dtype == "float32"}
    assert device == {"patches", "prompt_tokens"}
    assert host == {"pixel_values", "proprio", "prompt_keys", "normalized_actions"}
    for part in PARTS:
        graph, types = element_types(half_bundle, part)
        weights = {types[tensor.name] for tensor in graph.initializer if tensor.name.startswith("model.")}
        assert weights == {HALF[half_bundle.name]}, part


def test_norms_angles_and_scores_stay_in_float32(half_bundle: Path) -> None:
    computed = {("prompt", "ReduceMean"): 1, ("pruner", "ReduceMean"): 3, ("pruner", "Softmax"): 1}
    computed |= {("pruner", "ArgMax"): 1, ("decoder", "ReduceMean"): 5, ("decoder", "Cos"): 1}
    for (part, operator), count in computed.items():
        graph, types = element_types(half_bundle, part)
        inputs = [types[node.input[0]] for node in graph.node if node.op_type == operator]
        assert inputs == [onnx.TensorProto.FLOAT] * count, (part, operator)
    vision, _ = element_types(half_bundle, "vision")
    norms = [node for node in vision.node if node.op_type == "LayerNormalization"]
    assert norms
    for node in norms:
        stash = next(attribute.i for attribute in node.attribute if attribute.name == "stash_type")
        assert stash == onnx.TensorProto.FLOAT


def test_float16_parts_compute_what_torch_does_in_float32(
    tiny_model: LightVla, half_bundles: dict[str, Path], tiny_bundle: Path
) -> None:
    bundle = half_bundles["float16"]
    sessions = {part: onnxruntime.InferenceSession(bundle / f"{part}.onnx") for part in PARTS}
    for sample in random_samples(load_engine(tiny_bundle, num_threads=1), 3, seed=3):
        proprio = sample.proprio[None]
        (patches,) = sessions["vision"].run(None, {"pixel_values": sample.pixel_values})
        tokens, keys = sessions["prompt"].run(None, {"input_ids": sample.input_ids[None]})
        length = np.array([tokens.shape[1]])
        order, count = sessions["pruner"].run(
            None, {"patches": patches, "prompt_keys": keys, "prompt_length": length, "proprio": proprio}
        )
        retained = order[:, : count[0]]
        feeds = {"patches": patches, "retained_indices": retained, "retained_count": count}
        feeds |= {"prompt_tokens": tokens, "prompt_length": length, "proprio": proprio}
        (actions,) = sessions["decoder"].run(None, feeds)

        with torch.inference_mode():
            exact = tiny_model.encode_images(torch.from_numpy(sample.pixel_values))
            prompt = tiny_model.embed_prompt(torch.from_numpy(sample.input_ids)[None])
            indices = torch.from_numpy(retained)
            hidden = tiny_model.decode(exact[:, indices[0]], indices, prompt, torch.from_numpy(proprio))
            expected = tiny_model.action_head(hidden)
        assert actions.dtype == np.float32
        assert cosine(patches, exact.numpy()) > 0.9999
        assert cosine(actions, expected.numpy()) > 0.999


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def test_an_unknown_precision_is_refused(tiny_model: LightVla, policy: PolicyConfig, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="float8"):
        export_bundle(tiny_model, policy, tmp_path / "new", precision="float8")


# -- where weights come from -------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["checkpoint", "bundle"])
def test_model_checkpoint_and_bundle_give_the_same_files(
    source: str, tiny_model: LightVla, half_bundles: dict[str, Path], tiny_bundle: Path, tmp_path: Path
) -> None:
    save_checkpoint(tiny_model, tmp_path / "checkpoint")
    manifest = Manifest.read(tiny_bundle)
    stored = open_checkpoint(tmp_path / "checkpoint")
    if source == "bundle":
        stored = open_bundle(tiny_bundle, manifest)
    export_bundle(stored, manifest.policy, tmp_path / "new", precision="bfloat16")
    assert contents(tmp_path / "new") == contents(half_bundles["bfloat16"])
    hash_of_source = Manifest.read(tmp_path / "new").checkpoint_hash
    assert hash_of_source == weights_hash(tiny_model), "not of what was rounded"


def test_weights_beside_the_graph_run_and_come_back(
    tiny_model: LightVla, tiny_bundle: Path, policy: PolicyConfig, tmp_path: Path
) -> None:
    manifest = export_bundle(tiny_model, policy, tmp_path / "beside", inline_bytes=1024)
    assert [file.name for file in manifest.parts["vision"].files] == ["vision.onnx", "vision.onnx.data"]
    for part in PARTS:
        onnx.checker.check_model(tmp_path / "beside" / f"{part}.onnx")
    for name, weight in model_from_bundle(tmp_path / "beside", manifest).state_dict().items():
        assert weight.equal(tiny_model.state_dict()[name]), name
    inside, beside = (load_engine(path, num_threads=1).engine for path in (tiny_bundle, tmp_path / "beside"))
    for sample in random_samples(load_engine(tiny_bundle, num_threads=1), 2, seed=4):
        actions = []
        for engine in (inside, beside):
            patches, prompt = (
                engine.encode_images(sample.pixel_values),
                engine.encode_prompt(sample.input_ids),
            )
            retained = engine.prune(patches, prompt, sample.proprio)
            actions.append(engine.decode(patches, retained, prompt, sample.proprio))
        np.testing.assert_array_equal(*actions)


class CountingWeights(Mapping[str, Tensor]):
    """Weights as copies that are counted for as long as they live."""

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        self.state = state
        self.alive = self.most = 0

    def __getitem__(self, name: str) -> Tensor:
        tensor = self.state[name].clone()
        self.alive += 1
        self.most = max(self.most, self.alive)
        weakref.finalize(tensor, self._gone)
        return tensor

    def _gone(self) -> None:
        self.alive -= 1

    def __iter__(self) -> Iterator[str]:
        return iter(self.state)

    def __len__(self) -> int:
        return len(self.state)


def test_a_half_precision_checkpoint_survives_its_bundle_and_is_never_in_memory_as_a_whole(
    tiny_model: LightVla, policy: PolicyConfig, tmp_path: Path
) -> None:
    save_checkpoint(tiny_model, tmp_path / "checkpoint", dtype=torch.bfloat16)
    weights = CountingWeights(open_checkpoint(tmp_path / "checkpoint").weights)
    stored = StoredModel(config=tiny_model.config, weights=weights)
    manifest = export_bundle(stored, policy, tmp_path / "new", precision="bfloat16", inline_bytes=0)
    assert len(weights) > 80
    assert weights.most <= 3
    back = model_from_bundle(tmp_path / "new", manifest).state_dict()
    for name in weights:
        assert back[name].equal(weights[name].float()), name


def test_rounded_weights_do_not_pass_as_the_reference(half_bundle: Path) -> None:
    with pytest.raises(BundleError, match=r"rounded to .*--checkpoint"):
        open_bundle(half_bundle, Manifest.read(half_bundle))


def test_weights_outside_the_bundle_are_not_read(bundle_copy: Path, tmp_path: Path) -> None:
    path, foreign = bundle_copy / "decoder.onnx", tmp_path / "foreign.data"
    onnx.save(
        onnx.load(path), path, save_as_external_data=True, location="decoder.onnx.data", size_threshold=1
    )
    (bundle_copy / "decoder.onnx.data").rename(foreign)
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = "../foreign.data"
    path.write_bytes(model.SerializeToString())
    manifest = Manifest.read(bundle_copy)
    part = replace(manifest.parts["decoder"], files=(describe_file(path),))
    manifest = replace(manifest, parts={**manifest.parts, "decoder": part})
    with pytest.raises(BundleError, match=r"foreign\.data"):
        open_bundle(bundle_copy, manifest)


# -- interrupts --------------------------------------------------------------------------------------------


class Watch:
    """Notes which parts are written; interrupts at one of them when told."""

    def __init__(self, interrupt_at: str | None = None) -> None:
        self.interrupt_at = interrupt_at
        self.written: list[str] = []

    def __call__(self, what: str, done: int, total: int) -> None:
        assert 0 <= done <= total
        if what == self.interrupt_at and done:
            raise KeyboardInterrupt
        if what in PARTS and done == total:
            self.written.append(what)


@pytest.fixture
def interrupted(tiny_model: LightVla, policy: PolicyConfig, tmp_path: Path) -> Path:
    """Target of an export that was interrupted while it wrote the decoder."""
    target = tmp_path / "new"
    with pytest.raises(KeyboardInterrupt):
        export_bundle(tiny_model, policy, target, progress=Watch("decoder"))
    return target


def test_an_interrupt_leaves_finished_parts_beside_the_target(interrupted: Path) -> None:
    assert [path.name for path in interrupted.parent.iterdir()] == [".new.partial"]


def test_the_same_export_goes_on_where_it_was_interrupted(
    interrupted: Path, tiny_model: LightVla, policy: PolicyConfig, tiny_bundle: Path
) -> None:
    (interrupted.with_name(".new.partial") / "bundle" / "decoder.onnx.data.tmp").write_bytes(b"half")
    watch = Watch()
    export_bundle(tiny_model, policy, interrupted, progress=watch)
    assert watch.written == ["decoder"]
    names = [*(f"{part}.onnx" for part in PARTS), "manifest.json"]
    assert sorted(path.name for path in interrupted.iterdir()) == sorted(names)
    assert [path.name for path in interrupted.parent.iterdir()] == ["new"]
    for part in PARTS:
        assert (interrupted / f"{part}.onnx").read_bytes() == (tiny_bundle / f"{part}.onnx").read_bytes()


@pytest.mark.parametrize("change", ["none", "fresh", "precision", "weights", "truncated"])
def test_only_whole_parts_of_the_same_export_are_taken_over(
    change: str, tiny_model: LightVla, tiny_config: ModelConfig, policy: PolicyConfig, tmp_path: Path
) -> None:
    target = tmp_path / "new"
    with pytest.raises(KeyboardInterrupt):
        export_bundle(tiny_model, policy, target, progress=Watch("vision"))
    if change == "truncated":
        (tmp_path / ".new.partial" / "bundle" / "prompt.onnx").write_bytes(b"")
    watch = Watch("vision")
    with pytest.raises(KeyboardInterrupt):
        export_bundle(
            LightVla(tiny_config, tiny_model.statistics) if change == "weights" else tiny_model,
            policy,
            target,
            precision="bfloat16" if change == "precision" else "float32",
            fresh=change == "fresh",
            progress=watch,
        )
    assert watch.written == ([] if change == "none" else ["prompt"])
    assert not target.exists()


# -- failures ----------------------------------------------------------------------------------------------


def test_a_weight_that_is_not_finite_stops_the_export_before_it_writes(
    tiny_model: LightVla, policy: PolicyConfig, tmp_path: Path
) -> None:
    save_checkpoint(tiny_model, tmp_path / "checkpoint")
    path = tmp_path / "checkpoint" / "model.safetensors"
    tensors = load_file(path)
    tensors["projector.fc2.bias"][0] = float("nan")
    save_file(tensors, path)
    with pytest.raises(CheckpointError, match=r"projector\.fc2\.bias.*finite"):
        export_bundle(open_checkpoint(tmp_path / "checkpoint"), policy, tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_a_weight_beyond_float16_is_named_and_nothing_stays(
    tiny_model: LightVla, policy: PolicyConfig, tmp_path: Path
) -> None:
    model = LightVla(tiny_model.config, tiny_model.statistics)
    with torch.no_grad():
        model.language_model.model.embed_tokens.weight[5, 0] = 70000
    with pytest.raises(SpecError, match=r"embed_tokens\.weight.*7e\+04.*bfloat16"):
        export_bundle(model, policy, tmp_path / "new", precision="float16")
    assert list(tmp_path.iterdir()) == []


def test_a_disk_without_room_is_refused_before_anything_is_written(
    tiny_model: LightVla, policy: PolicyConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**6, 10**6 - 1000, 1000))
    watch = Watch()
    with pytest.raises(BundleError, match="GB free"):
        export_bundle(tiny_model, policy, tmp_path / "new", progress=watch)
    assert not watch.written
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_up_is_named_and_nothing_stays(
    tiny_model: LightVla, policy: PolicyConfig, tmp_path: Path
) -> None:
    def fill(what: str, done: int, total: int) -> None:
        if what == "prompt" and done:
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(BundleError, match="No space left"):
        export_bundle(tiny_model, policy, tmp_path / "new", progress=fill)
    assert list(tmp_path.iterdir()) == []


def test_two_exports_do_not_write_one_target(
    interrupted: Path, tiny_model: LightVla, policy: PolicyConfig
) -> None:
    staging = interrupted.with_name(".new.partial")
    with (staging / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(BundleError, match="another export"):
            export_bundle(tiny_model, policy, interrupted)
    assert (staging / "export.json").is_file(), "the other export's work is not thrown away"


# -- the command -------------------------------------------------------------------------------------------


def test_a_bundle_is_exported_in_another_precision_over_an_older_one(
    tiny_bundle: Path, bundle_copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = (tiny_bundle, "--out", bundle_copy, "--precision", "bf16", "--force", "--json")
    assert command(export, *arguments) == 0
    assert last_json(capsys)["precision"] == "bfloat16"
    before, after = (Manifest.read(path).to_mapping() for path in (tiny_bundle, bundle_copy))
    assert {name for name in before if before[name] != after[name]} == {"precision", "parts"}
    assert (bundle_copy / "tokenizer.json").read_bytes() == (tiny_bundle / "tokenizer.json").read_bytes()
    assert [path.name for path in bundle_copy.parent.iterdir()] == [bundle_copy.name]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--statistics-key", "libero"), "first_no_noops"),
        (("--quant", "fp8"), "nvidia-modelopt"),
        (("--quant", "int8", "--precision", "bf16"), "--precision bfloat16"),
    ],
)
def test_options_that_contradict_the_source_are_refused(
    tiny_bundle: Path, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    with pytest.raises(LightVlaError, match=message):
        command(export, tiny_bundle, "--out", tmp_path / "new", *arguments)
    assert list(tmp_path.iterdir()) == []


def test_buckets_are_taken_as_suggested_and_all_tokens_added(tiny_bundle: Path, tmp_path: Path) -> None:
    arguments = (tiny_bundle, "--out", tmp_path / "new", "--buckets")
    with pytest.raises(ConfigError, match=r"length buckets; got \[4, 33\]; expected counts from 1 to 32"):
        command(export, *arguments, 4, 33)
    assert command(export, *arguments, 12, 4) == 0
    assert Manifest.read(tmp_path / "new").length_buckets == (4, 12, 32)
