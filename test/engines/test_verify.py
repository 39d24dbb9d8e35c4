"""Verification: which part is wrong, what is a tie, what is not finite, and what is kept of the verdict."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper

from lightvla_ros.backends.bundle_model import model_from_bundle
from lightvla_ros.backends.comparison import EngineSample, compare, differences
from lightvla_ros.backends.loading import LoadedEngine, load_engine
from lightvla_ros.backends.manifest import Manifest, describe_file
from lightvla_ros.backends.onnxruntime_engine import OrtEngine
from lightvla_ros.backends.thresholds import Thresholds, load_thresholds
from lightvla_ros.backends.torch_engine import TorchEngine
from lightvla_ros.backends.verification import Verdict, read_record, require_verified, write_record
from lightvla_ros.commands._inputs import random_samples
from lightvla_ros.core.errors import BundleError, ConfigError
from lightvla_ros.core.paths import engine_directory
from lightvla_ros.model import LightVla

OUTPUTS = {"prompt": "prompt_tokens", "vision": "patches", "pruner": "count", "decoder": "normalized_actions"}


@pytest.fixture(scope="module")
def loaded(tiny_bundle: Path) -> LoadedEngine:
    return load_engine(tiny_bundle, "onnxruntime", num_threads=1)


@pytest.fixture(scope="module")
def samples(loaded: LoadedEngine) -> list[EngineSample]:
    return random_samples(loaded, 3, seed=0)


@pytest.fixture(scope="module")
def reference(tiny_model: LightVla) -> TorchEngine:
    return TorchEngine(tiny_model)


def edit_output(bundle: Path, part: str, operator: str, value: float) -> None:
    """Append an operator with a constant to a part's output, and write the manifest for the new file."""
    path, name = bundle / f"{part}.onnx", OUTPUTS[part]
    model = onnx.load(path)
    for node in model.graph.node:
        node.output[:] = ["original" if output == name else output for output in node.output]
        node.input[:] = ["original" if read == name else read for read in node.input]
    dtype = np.int64 if part == "pruner" else np.float32
    model.graph.initializer.append(numpy_helper.from_array(np.array(value, dtype=dtype), "constant"))
    model.graph.node.append(helper.make_node(operator, ["original", "constant"], [name]))
    onnx.save(model, path)
    manifest = Manifest.read(bundle).to_mapping()
    manifest["parts"][part]["files"] = [asdict(describe_file(path))]
    (bundle / "manifest.json").write_text(json.dumps(manifest))


def judge(
    reference: TorchEngine, engine: OrtEngine | TorchEngine, samples: list[EngineSample], kind: str
) -> Verdict:
    comparisons = tuple(compare(reference, engine, sample) for sample in samples)
    return Verdict(comparisons=comparisons, thresholds=load_thresholds(kind))


def test_a_whole_engine_passes_in_every_part(
    reference: TorchEngine, loaded: LoadedEngine, samples: list[EngineSample]
) -> None:
    verdict = judge(reference, loaded.engine, samples, "float32")
    assert verdict.passed
    assert {figure.part for figure in verdict.figures} == {*OUTPUTS, "end_to_end"}
    assert verdict.num_differences == 0
    assert max(comparison.max_abs_error for comparison in verdict.comparisons) < 1e-4


@pytest.mark.parametrize("part", ["prompt", "vision", "pruner", "decoder"])
def test_the_part_that_computes_something_else_is_named(
    bundle_copy: Path, reference: TorchEngine, samples: list[EngineSample], part: str
) -> None:
    if part == "pruner":
        edit_output(bundle_copy, part, "Sub", 1)  # the last retained token is lost
    else:
        edit_output(bundle_copy, part, "Mul", 1.05)
    engine = OrtEngine(bundle_copy, Manifest.read(bundle_copy), num_threads=1)
    verdict = judge(reference, engine, samples, "float32")
    assert not verdict.passed
    # What follows in the chain may fail too, but no other part on its own inputs.
    assert verdict.failed[0] == part
    assert set(verdict.failed) <= {part, "end_to_end"} | ({"decoder"} if part == "prompt" else set())


@pytest.mark.parametrize("part", ["prompt", "vision", "decoder"])
def test_outputs_that_are_not_finite_fail_with_their_part_named(
    bundle_copy: Path, reference: TorchEngine, samples: list[EngineSample], part: str
) -> None:
    edit_output(bundle_copy, part, "Mul", float("nan"))
    engine = OrtEngine(bundle_copy, Manifest.read(bundle_copy), num_threads=1)
    verdict = judge(reference, engine, samples, "float32")
    assert verdict.failed[0] == part
    assert verdict.non_finite[0] == part
    assert "end_to_end" in verdict.failed
    assert "NaN" not in json.dumps(verdict.to_mapping())


def test_scores_that_are_not_finite_fail_as_the_pruner(
    reference: TorchEngine, tiny_model: LightVla, samples: list[EngineSample]
) -> None:
    broken = copy.deepcopy(tiny_model)
    broken.proprio_projector.fc2.bias.data.fill_(float("inf"))
    verdict = judge(reference, TorchEngine(broken), samples, "float32")
    assert "pruner" in verdict.non_finite
    assert verdict.comparisons[0].kept_iou == 0.0
    assert verdict.to_mapping()["passed"] is False


def test_half_precision_passes_because_what_it_retains_differently_are_ties() -> None:
    directory = engine_directory("mini")
    model = model_from_bundle(directory, Manifest.read(directory))
    engine = TorchEngine(copy.deepcopy(model).to(torch.bfloat16))
    samples = random_samples(load_engine(directory, num_threads=1), 16, seed=0)[4:]
    verdict = judge(TorchEngine(model), engine, samples, "bfloat16")
    assert verdict.num_ties == verdict.num_differences > 0
    assert min(comparison.kept_iou for comparison in verdict.comparisons) < 0.99
    assert verdict.passed
    strict = replace(verdict, thresholds=replace(verdict.thresholds, tie_margin=0.0))
    assert strict.failed == ("pruner",)


def test_the_margin_of_a_difference_is_what_the_reference_loses_by_it() -> None:
    score = np.array(
        [[4.0, 3.9, 1.0], [4.0, 2.0, 0.0], [0.0, 1.0, 2.0]], dtype=np.float32
    )  # rows choose 0, 0, 2
    added = differences(score, np.array([0, 2]), np.array([0, 1, 2]))
    assert [(d.token, d.retained_by) for d in added] == [(1, "engine")]
    assert added[0].margin == pytest.approx(0.1 / 4, rel=1e-4)  # row 0 prefers 1 by that much less
    dropped, swapped = differences(score, np.array([0, 2]), np.array([1, 2]))
    assert (dropped.token, dropped.retained_by) == (0, "reference")
    assert dropped.margin == pytest.approx(0.5)  # row 1 finds nothing better than 2.0
    assert swapped.token == 1


def test_an_empty_set_differs_in_every_token() -> None:
    score = np.eye(3, dtype=np.float32)
    lost = differences(score, np.arange(3), np.zeros(0, dtype=np.int64))
    assert [difference.margin for difference in lost] == [float("inf")] * 3


# -- thresholds --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["float32", "float16", "bfloat16", "int8", "int4"])
def test_every_kind_of_bundle_has_thresholds(kind: str) -> None:
    assert load_thresholds(kind).min_kept_iou >= 0.99


def test_a_thresholds_file_replaces_only_what_it_names(tmp_path: Path) -> None:
    path = tmp_path / "limits.json"
    path.write_text('{"float32": {"max_abs_error": 0.5}}')
    assert load_thresholds("float32", path) == replace(load_thresholds("float32"), max_abs_error=0.5)
    assert load_thresholds("float16", path) == load_thresholds("float16")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "JSON"),
        ("[1]", "object of objects"),
        ('{"float32": 3}', "object of objects"),
        ('{"float32": {"max_error": 1}}', "unknown.*max_error"),
        ('{"float32": {"max_abs_error": "much"}}', "finite number"),
        ('{"float32": {"max_abs_error": true}}', "finite number"),
        ('{"float32": {"max_abs_error": -1}}', "finite number"),
        ('{"float32": {"max_abs_error": NaN}}', "finite number"),
        ('{"fp4": {"max_abs_error": 1}}', "no .*min_kept_iou"),
    ],
)
def test_a_thresholds_file_that_is_wrong_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "limits.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_thresholds("fp4" if "fp4" in text else "float32", path)


def test_missing_thresholds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="absent"):
        load_thresholds("float32", tmp_path / "absent.json")
    with pytest.raises(ConfigError, match="one for 'fp4'"):
        load_thresholds("fp4")


# -- the record --------------------------------------------------------------------------------------


@pytest.fixture
def verdict(reference: TorchEngine, loaded: LoadedEngine, samples: list[EngineSample]) -> Verdict:
    return judge(reference, loaded.engine, samples[:1], "float32")


def test_plans_are_refused_until_they_have_been_verified(tmp_path: Path, verdict: Verdict) -> None:
    plans = tmp_path / "bundle" / "plans" / "sm_86"
    plans.mkdir(parents=True)
    with pytest.raises(BundleError, match=f"lightvla verify {tmp_path / 'bundle'} --backend tensorrt"):
        require_verified(plans, "digest")
    write_record(plans, verdict.to_mapping(), "digest")
    require_verified(plans, "digest")
    assert read_record(plans)["action_cosine"] > 0.999


def test_a_verification_of_other_plans_does_not_count(tmp_path: Path, verdict: Verdict) -> None:
    write_record(tmp_path, verdict.to_mapping(), "digest")
    with pytest.raises(BundleError, match="other plans"):
        require_verified(tmp_path, "another digest")


def test_plans_that_failed_are_refused_with_the_part_named(tmp_path: Path, verdict: Verdict) -> None:
    limits = Thresholds(**{**asdict(verdict.thresholds), "max_abs_error": 0.0})
    write_record(tmp_path, replace(verdict, thresholds=limits).to_mapping(), "digest")
    with pytest.raises(BundleError, match="failed: decoder"):
        require_verified(tmp_path, "digest")


@pytest.mark.parametrize(
    "damage",
    [lambda text: text[:20], lambda text: "[]", lambda text: text.replace('"schema_version": 1', '"x": 1')],
)
def test_a_damaged_record_is_refused(tmp_path: Path, verdict: Verdict, damage: Callable[[str], str]) -> None:
    path = write_record(tmp_path, verdict.to_mapping(), "digest")
    path.write_text(damage(path.read_text()))
    with pytest.raises(BundleError, match="lightvla verify"):
        require_verified(tmp_path, "digest")
