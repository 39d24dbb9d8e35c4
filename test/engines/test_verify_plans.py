"""`lightvla verify` on plans, and that only verified plans are loaded: on doubles of CUDA and TensorRT."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import pytest
from cuda_double import CudaDouble, RuntimeDouble
from test_tensorrt_engine import write_plans
from test_verify import edit_output

from lightvla_ros.backends.availability import Availability
from lightvla_ros.backends.loading import load_engine
from lightvla_ros.backends.manifest import Manifest
from lightvla_ros.backends.tensorrt import engine as tensorrt_engine
from lightvla_ros.backends.tensorrt import runtime as tensorrt_runtime
from lightvla_ros.backends.tensorrt.plan import PlanSet
from lightvla_ros.backends.verification import RECORD_NAME
from lightvla_ros.commands import verify
from lightvla_ros.commands._bundle_findings import plans_finding
from lightvla_ros.core.errors import BundleError


@pytest.fixture(autouse=True)
def doubles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the doubles where the engine reaches for a GPU."""
    monkeypatch.setattr(tensorrt_engine, "CudaDevice", CudaDouble)
    monkeypatch.setattr(tensorrt_engine, "TensorRtRuntime", lambda flavour: RuntimeDouble())
    monkeypatch.setattr(
        tensorrt_runtime, "machine", lambda flavour: RuntimeDouble().machine(CudaDouble().info())
    )


def build(bundle: Path) -> PlanSet:
    directory = bundle / "plans" / "sm_86-tensorrt-float32"
    plan_set = write_plans(bundle, Manifest.read(bundle), directory, lambda profiles: None)
    plan_set.write()
    return plan_set


def run(bundle: Path, *arguments: str) -> int:
    parser = argparse.ArgumentParser()
    verify.add_arguments(parser)
    return verify.run(parser.parse_args([str(bundle), "--samples", "2", *arguments]))


def test_plans_are_loaded_once_they_have_been_verified(bundle_copy: Path) -> None:
    plan_set = build(bundle_copy)
    with pytest.raises(BundleError, match="lightvla verify"):
        load_engine(bundle_copy, "tensorrt")
    assert run(bundle_copy, "--backend", "tensorrt") == 0
    record = json.loads((plan_set.directory / RECORD_NAME).read_text())
    assert record["fingerprint"] == plan_set.fingerprint.digest
    assert (record["passed"], record["backend"], record["kind"]) == (True, "tensorrt", "float32")
    loaded = load_engine(bundle_copy, "tensorrt")
    loaded.engine.close()
    assert loaded.backend == "tensorrt"


def test_plans_that_fail_stay_unloaded(bundle_copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit_output(bundle_copy, "vision", "Add", 0.5)
    plan_set = build(bundle_copy)
    assert run(bundle_copy, "--plans", str(plan_set.directory)) == 1
    assert "FAILED: vision" in capsys.readouterr().out
    with pytest.raises(BundleError, match="failed: vision"):
        load_engine(bundle_copy, "tensorrt")
    load_engine(bundle_copy, "tensorrt", allow_unverified=True).engine.close()


def test_building_again_asks_for_a_new_verification(bundle_copy: Path) -> None:
    plan_set = build(bundle_copy)
    assert run(bundle_copy, "--backend", "tensorrt") == 0
    content = json.loads((plan_set.directory / "plan.json").read_text())
    content["fingerprint"]["flags"] = {"rebuilt": True}
    (plan_set.directory / "plan.json").write_text(json.dumps(content))
    with pytest.raises(BundleError, match="other plans"):
        load_engine(bundle_copy, "tensorrt")


def test_doctor_tells_whether_plans_are_verified(bundle_copy: Path) -> None:
    plan_set, manifest = build(bundle_copy), Manifest.read(bundle_copy)
    present = {"tensorrt": Availability(name="tensorrt", usable=True, found="tensorrt 10.13.0")}
    unverified = plans_finding(plan_set.directory, manifest, present)
    assert unverified.level == "warning"
    assert "lightvla verify" in unverified.fix
    assert run(bundle_copy, "--backend", "tensorrt") == 0
    assert plans_finding(plan_set.directory, manifest, present).level == "ok"


def test_doctor_tells_plans_for_other_machines(bundle_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan_set, manifest = build(bundle_copy), Manifest.read(bundle_copy)
    lacking = {"tensorrt": Availability(name="tensorrt", usable=False, lacks="an NVIDIA GPU")}
    assert plans_finding(plan_set.directory, manifest, lacking).level == "note"
    present = {"tensorrt": Availability(name="tensorrt", usable=True)}
    other = replace(RuntimeDouble().machine(CudaDouble().info()), target="sm_120")
    monkeypatch.setattr(tensorrt_runtime, "machine", lambda flavour: other)
    finding = plans_finding(plan_set.directory, manifest, present)
    assert finding.level == "note"
    assert "--target sm_120" in finding.fix
