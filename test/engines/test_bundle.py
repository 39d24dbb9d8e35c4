"""Bundles: what is written, what is refused, and the way back to torch."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from lightvla_ros.backends.bundle_model import model_from_bundle
from lightvla_ros.backends.export import export_bundle
from lightvla_ros.backends.loading import load_engine
from lightvla_ros.backends.manifest import Manifest, describe_file
from lightvla_ros.core.errors import BundleError, ConfigError
from lightvla_ros.model import LightVla
from lightvla_ros.model.policy_config import policy_config_for


def edit_manifest(bundle: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    path = bundle / "manifest.json"
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def accept_files(bundle: Path, part: str, *paths: Path) -> None:
    """Write the present size and hash of files into the manifest, as a careful forger would."""
    entries = [asdict(describe_file(path)) for path in paths]
    edit_manifest(bundle, lambda content: content["parts"][part].update(files=entries))


def test_the_manifest_reads_back_as_written(tiny_bundle: Path, tiny_model: LightVla) -> None:
    manifest = Manifest.read(tiny_bundle)
    assert manifest.model == tiny_model.config
    assert manifest.policy.jpeg is False
    assert manifest.policy.statistics_key == "first_no_noops"
    assert manifest.notes == {"training": {"steps": 0}}
    assert manifest.to_mapping() == Manifest.from_mapping(manifest.to_mapping()).to_mapping()
    outputs = {
        name: [(o.name, o.dtype, o.shape) for o in part.outputs] for name, part in manifest.parts.items()
    }
    assert outputs["vision"] == [("patches", "float32", (1, 32, 32))]
    assert outputs["pruner"] == [("order", "int64", (1, 32)), ("count", "int64", (1,))]
    assert outputs["decoder"] == [("normalized_actions", "float32", (1, 8, 7))]
    retained = next(i for i in manifest.parts["decoder"].inputs if i.name == "retained_indices")
    assert isinstance(retained.shape[1], str), "the length axis is dynamic"


def test_only_the_prompt_part_holds_the_embedding_table(tiny_bundle: Path) -> None:
    name = "model.language_model.model.embed_tokens.weight"
    rows = {}
    for part in ("prompt", "vision", "pruner", "decoder"):
        graph = onnx.load(tiny_bundle / f"{part}.onnx").graph
        rows[part] = [tuple(i.dims)[0] for i in graph.initializer if i.name == name]
    assert rows == {"prompt": [64], "vision": [], "pruner": [3], "decoder": [3]}


@pytest.mark.parametrize("part", ["prompt", "vision", "pruner", "decoder"])
def test_a_part_does_not_tell_where_it_was_exported(tiny_bundle: Path, part: str) -> None:
    source = Path(export_bundle.__code__.co_filename)
    assert str(source.parents[1]).encode() not in (tiny_bundle / f"{part}.onnx").read_bytes()
    assert b"stack_trace" not in (tiny_bundle / f"{part}.onnx").read_bytes()


def test_the_torch_model_comes_back_from_a_bundle(tiny_bundle: Path, tiny_model: LightVla) -> None:
    model = model_from_bundle(tiny_bundle, Manifest.read(tiny_bundle))
    for name, weight in tiny_model.state_dict().items():
        assert model.state_dict()[name].equal(weight), name


@pytest.mark.parametrize("backend", ["onnxruntime", "torch"])
def test_weights_beside_the_graph_are_loaded_and_checked(bundle_copy: Path, backend: str) -> None:
    # Parts beyond 2 GB have this form.
    path, data = bundle_copy / "decoder.onnx", bundle_copy / "decoder.onnx.data"
    onnx.save(onnx.load(path), path, save_as_external_data=True, location=data.name, size_threshold=1024)
    accept_files(bundle_copy, "decoder", path, data)
    load_engine(bundle_copy, backend)
    data.write_bytes(bytes(data.stat().st_size))
    with pytest.raises(BundleError, match=r"decoder\.onnx\.data"):
        load_engine(bundle_copy, backend)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_directory_with_other_files_is_never_replaced(
    tiny_model: LightVla, tmp_path: Path, overwrite: bool
) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    policy = policy_config_for(tiny_model.config, tiny_model.statistics)
    with pytest.raises(BundleError, match="already"):
        export_bundle(tiny_model, policy, tmp_path, overwrite=overwrite)


def test_a_policy_of_another_model_is_not_exported(tiny_model: LightVla, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="image_size"):
        policy_config_for(tiny_model.config, tiny_model.statistics, overrides={"image_size": 224})


def test_a_directory_without_manifest_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="manifest.json"):
        load_engine(tmp_path)
    with pytest.raises(BundleError, match="no such file"):
        Manifest.read(tmp_path)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda m: m.update(schema_version=99), "schema_version"),
        (lambda m: m.pop("policy"), "policy"),
        (lambda m: m.update(colour="red"), "colour"),
        (lambda m: m.update(precision="float8"), "float8"),
        (lambda m: m.update(length_buckets=[16, 8, 32]), "ascending"),
        (lambda m: m.update(length_buckets=[16, 24]), "expected 32"),
        (lambda m: m.update(prompt_buckets=[]), "ascending"),
        (lambda m: m["parts"].pop("pruner"), "pruner"),
        (lambda m: m["policy"].update(fitt="pad"), "fitt"),
        (lambda m: m["policy"].pop("grid"), "grid"),
        (lambda m: m["policy"].update(chunk_size=9), "chunk_size"),
        (lambda m: m["policy"]["statistics"]["action"].update(q01=[0.0]), "q01"),
        (lambda m: m["model"].update(layers=3), "layers"),
        (lambda m: m["parts"]["vision"]["files"][0].update(name="../vision.onnx"), "plain name"),
        (lambda m: m.update(tokenizer="/etc/passwd"), "plain name"),
    ],
)
def test_a_manifest_that_says_something_wrong_is_refused(
    bundle_copy: Path, edit: Callable[[dict[str, Any]], object], message: str
) -> None:
    edit_manifest(bundle_copy, edit)
    with pytest.raises(BundleError, match=message):
        load_engine(bundle_copy)


def test_a_manifest_that_is_not_json_is_refused(bundle_copy: Path) -> None:
    (bundle_copy / "manifest.json").write_text("{")
    with pytest.raises(BundleError, match="invalid JSON"):
        load_engine(bundle_copy)


@pytest.mark.parametrize("backend", ["onnxruntime", "torch"])
def test_damaged_parts_are_refused(bundle_copy: Path, backend: str) -> None:
    path = bundle_copy / "decoder.onnx"
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    for damaged, message in ((whole[:-1], "bytes"), (bytes(flipped), "sha256")):
        path.write_bytes(damaged)
        with pytest.raises(BundleError, match=message):
            load_engine(bundle_copy, backend)
    path.unlink()
    with pytest.raises(BundleError, match="no such file"):
        load_engine(bundle_copy, backend)


def test_weights_that_are_not_the_manifests_do_not_pass_as_the_reference(bundle_copy: Path) -> None:
    path = bundle_copy / "vision.onnx"
    model = onnx.load(path)
    bias = next(i for i in model.graph.initializer if i.name == "model.projector.fc3.bias")
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + np.float32(0.01), bias.name))
    onnx.save(model, path)
    accept_files(bundle_copy, "vision", path)
    with pytest.raises(BundleError, match="hash"):
        load_engine(bundle_copy, "torch")
