"""`lightvla verify` on the tiny bundle, `lightvla export` on its checkpoint."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from lightvla_ros.backends.manifest import Manifest, describe_file
from lightvla_ros.commands import export, verify
from lightvla_ros.core.errors import BundleError
from lightvla_ros.model import LightVla, save_checkpoint


def command(module: ModuleType, *arguments: object) -> int:
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    code: int = module.run(parser.parse_args([str(argument) for argument in arguments]))
    return code


def last_json(capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    content: dict[str, object] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return content


def test_verify_passes_on_a_whole_bundle(tiny_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(verify, tiny_bundle, "--backend", "onnxruntime", "--samples", 3, "--json") == 0
    summary = last_json(capsys)
    assert summary["passed"] is True
    assert summary["action_cosine"] > 0.999999
    assert summary["max_abs_error"] < 1e-4
    assert summary["kept_iou"] == 1.0


def test_verify_fails_when_the_graph_computes_something_else(
    bundle_copy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = bundle_copy / "decoder.onnx"
    model = onnx.load(path)
    last = model.graph.node[-1]
    last.output[0] = "unscaled"
    scale = numpy_helper.from_array(np.array(1.05, dtype=np.float32), "scale")
    model.graph.initializer.append(scale)
    model.graph.node.append(helper.make_node("Mul", ["unscaled", "scale"], ["normalized_actions"]))
    onnx.save(model, path)
    manifest = Manifest.read(bundle_copy).to_mapping()
    manifest["parts"]["decoder"]["files"] = [asdict(describe_file(path))]
    (bundle_copy / "manifest.json").write_text(json.dumps(manifest))

    assert command(verify, bundle_copy, "--samples", 2, "--json") == 1
    summary = last_json(capsys)
    assert summary["passed"] is False
    assert summary["max_abs_error"] > 1e-3


def test_verify_refuses_a_tampered_bundle(bundle_copy: Path) -> None:
    with (bundle_copy / "pruner.onnx").open("ab") as stream:
        stream.write(b"\0")
    with pytest.raises(BundleError, match=r"pruner\.onnx"):
        command(verify, bundle_copy)


def test_verify_compares_with_the_bundles_own_checkpoint_only(
    tiny_bundle: Path, tiny_model: LightVla, tmp_path: Path
) -> None:
    save_checkpoint(tiny_model, tmp_path / "own")
    assert command(verify, tiny_bundle, "--checkpoint", tmp_path / "own", "--samples", 1) == 0
    other = LightVla(tiny_model.config, tiny_model.statistics)
    save_checkpoint(other, tmp_path / "other")
    with pytest.raises(BundleError, match="hash"):
        command(verify, tiny_bundle, "--checkpoint", tmp_path / "other", "--samples", 1)


def test_export_writes_a_bundle_that_verifies(
    tiny_model: LightVla, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    extras = {"policy": {"jpeg": False}, "training": {"steps": 7}}
    save_checkpoint(tiny_model, tmp_path / "checkpoint", extras=extras)
    bundle = tmp_path / "bundle"
    assert command(export, tmp_path / "checkpoint", "--out", bundle, "--json") == 0
    assert last_json(capsys)["bundle"] == str(bundle)
    manifest = Manifest.read(bundle)
    assert manifest.tokenizer is None
    assert manifest.notes == {"training": {"steps": 7}}
    assert command(verify, bundle, "--samples", 1) == 0
