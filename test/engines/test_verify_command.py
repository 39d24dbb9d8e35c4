"""`lightvla verify` on other inputs, other precisions and other references than its defaults."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lightvla_ros.backends.comparison import EngineSample
from lightvla_ros.backends.export import export_bundle
from lightvla_ros.backends.loading import load_engine
from lightvla_ros.backends.manifest import Manifest
from lightvla_ros.commands import verify
from lightvla_ros.commands._inputs import random_samples, world_samples
from lightvla_ros.core.errors import BundleError, ConfigError, SpecError
from lightvla_ros.model import LightVla


def run(*arguments: object) -> int:
    parser = argparse.ArgumentParser()
    verify.add_arguments(parser)
    return verify.run(parser.parse_args([str(argument) for argument in arguments]))


def last_json(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return content


@pytest.fixture(scope="module")
def half_bundle(tiny_bundle: Path, tiny_model: LightVla, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("engines") / "half"
    export_bundle(tiny_model, Manifest.read(tiny_bundle).policy, directory, precision="bfloat16")
    return directory


@pytest.fixture(scope="module")
def arrays(tiny_bundle: Path, tiny_model: LightVla) -> dict[str, Any]:
    """Two samples as a file holds them; the second with what the torch model gives."""
    from lightvla_ros.backends.torch_engine import TorchEngine

    first, second = random_samples(load_engine(tiny_bundle, num_threads=1), 2, seed=3)
    engine = TorchEngine(tiny_model)
    patches, prompt = engine.encode_images(second.pixel_values), engine.encode_prompt(second.input_ids)
    retained = engine.prune(patches, prompt, second.proprio)

    def named(name: str, sample: EngineSample) -> dict[str, Any]:
        return {
            f"{name}/input_ids": sample.input_ids,
            f"{name}/pixel_values": sample.pixel_values,
            f"{name}/proprio": sample.proprio,
        }

    return {
        **named("first", first),
        **named("second", second),
        "second/normalized_actions": engine.decode(patches, retained, prompt, second.proprio),
        "second/keep_mask": np.isin(np.arange(32), retained),
    }


def saved(path: Path, arrays: dict[str, Any]) -> Path:
    np.savez(path, **arrays)
    return path


def test_samples_of_a_file_are_compared_and_check_the_reference(
    tiny_bundle: Path, tmp_path: Path, arrays: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    path = saved(tmp_path / "golden.npz", arrays)
    assert run(tiny_bundle, "--backend", "onnxruntime", "--samples-file", path, "--json") == 0
    report = last_json(capsys)
    assert report["inputs"] == "2 samples of golden.npz"
    assert [sample["golden"] is None for sample in report["samples"]] == [True, False]
    assert "reference" in {figure["part"] for figure in report["figures"]}


def test_a_reference_that_misses_the_golden_actions_fails(
    tiny_bundle: Path, tmp_path: Path, arrays: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = {**arrays, "second/normalized_actions": arrays["second/normalized_actions"] + 0.1}
    path = saved(tmp_path / "golden.npz", wrong)
    assert run(tiny_bundle, "--backend", "onnxruntime", "--samples-file", path) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "FAILED: reference"


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("first/proprio", None, "first.*pixel_values"),
        ("first/images", np.zeros(3), "images"),
        ("second/keep_mask", None, "both or none"),
        ("first/proprio", np.zeros(7), r"proprio.*\(8,\)"),
        ("first/pixel_values", np.full((1, 12, 56, 56), np.nan), "non-finite"),
        ("first/input_ids", np.ones(33), "33 ids"),
        ("first/input_ids", np.ones(1), "1 ids"),
    ],
)
def test_a_samples_file_that_does_not_fit_is_refused(  # noqa: PLR0917 (parameters and fixtures)
    tiny_bundle: Path, tmp_path: Path, arrays: dict[str, Any], name: str, value: Any, message: str
) -> None:
    changed = {key: array for key, array in {**arrays, name: value}.items() if array is not None}
    path = saved(tmp_path / "wrong.npz", changed)
    with pytest.raises(SpecError, match=message):
        run(tiny_bundle, "--backend", "onnxruntime", "--samples-file", path)


def test_a_file_that_holds_no_samples_is_refused(tiny_bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "text.npz"
    path.write_text("no archive")
    for wrong in (path, tmp_path / "absent.npz", saved(tmp_path / "empty.npz", {})):
        with pytest.raises(ConfigError, match=wrong.name):
            run(tiny_bundle, "--backend", "onnxruntime", "--samples-file", wrong)


def test_frames_of_a_world_carry_its_instructions() -> None:
    pytest.importorskip("lightvla_ros.sim.tabletop", reason="the simulation extra is not installed")
    loaded = load_engine("mini", "onnxruntime", num_threads=1)
    first, second = world_samples(loaded, 2, seed=0)
    again = world_samples(loaded, 1, seed=0)[0]
    np.testing.assert_array_equal(again.pixel_values, first.pixel_values)
    assert first.input_ids[0] == loaded.model.bos_id
    assert first.input_ids.tolist() != second.input_ids.tolist()
    assert np.abs(first.pixel_values - second.pixel_values).max() > 0.1


def test_verify_passes_on_frames_of_a_world(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("lightvla_ros.sim.tabletop", reason="the simulation extra is not installed")
    assert run("mini", "--backend", "onnxruntime", "--world", "tabletop", "--samples", 2, "--json") == 0
    report = last_json(capsys)
    assert report["inputs"] == "2 frames of tabletop, seed 0"
    assert report["max_abs_error"] < 1e-5


def test_a_world_needs_a_tokenizer(bundle_copy: Path) -> None:
    content = json.loads((bundle_copy / "manifest.json").read_text())
    (bundle_copy / "manifest.json").write_text(json.dumps({**content, "tokenizer": None}))
    with pytest.raises(BundleError, match="tokenizer"):
        world_samples(load_engine(bundle_copy, num_threads=1), 1, seed=0)


def test_the_graphs_of_a_half_precision_bundle_are_checked_without_a_gpu(
    half_bundle: Path, tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    limits = tmp_path / "limits.json"
    limits.write_text('{"bfloat16": {"max_abs_error": 0.2}}')  # random weights give actions far beyond 1
    arguments = ("--checkpoint", tiny_bundle, "--thresholds", limits, "--samples", 2, "--json")
    assert run(half_bundle, "--widen", *arguments) == 0
    report = last_json(capsys)
    assert (report["kind"], report["widened"]) == ("bfloat16", True)
    assert report["reference"] == f"the weights of {tiny_bundle.name}"
    # The weights were rounded, and nothing else was.
    assert 1e-4 < report["samples"][0]["vision_error"] < 1e-2


def test_rounded_weights_ask_for_those_they_came_from(half_bundle: Path) -> None:
    with pytest.raises(BundleError, match="--checkpoint"):
        run(half_bundle, "--widen", "--samples", 1)


def test_only_half_precision_bundles_are_widened(tiny_bundle: Path, half_bundle: Path) -> None:
    with pytest.raises(ConfigError, match="leave out --widen"):
        run(tiny_bundle, "--widen")
    with pytest.raises(ConfigError, match="--backend torch"):
        run(half_bundle, "--widen", "--backend", "torch")


def test_limits_of_a_file_decide(
    tiny_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = tmp_path / "limits.json", tmp_path / "report.json"
    path.write_text('{"float32": {"max_abs_error": 0}}')
    arguments = ("--backend", "onnxruntime", "--samples", 1, "--thresholds", path, "--out", out)
    assert run(tiny_bundle, *arguments) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "FAILED: decoder"
    assert json.loads(out.read_text())["failed"] == ["decoder"]


def test_verifying_what_runs_no_plans_leaves_the_bundle_alone(bundle_copy: Path) -> None:
    before = sorted(path.name for path in bundle_copy.rglob("*"))
    assert run(bundle_copy, "--backend", "onnxruntime", "--samples", 1) == 0
    assert sorted(path.name for path in bundle_copy.rglob("*")) == before


def test_plans_that_are_not_there_are_refused(tiny_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="lightvla build"):
        run(tiny_bundle, "--backend", "tensorrt")
    with pytest.raises(BundleError, match=r"plan\.json"):
        run(tiny_bundle, "--plans", tmp_path)
