"""`lightvla doctor`: what it finds on this machine, and on machines that lack something."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from lightvla_ros.backends.manifest import PARTS, Manifest, describe_file
from lightvla_ros.backends.tensorrt.plan import Fingerprint, PlanPart, PlanSet
from lightvla_ros.commands._finding import Finding
from lightvla_ros.commands._findings import findings
from lightvla_ros.core.paths import engine_directory

SCRIPT = """
import sys
for name in {missing!r}: sys.modules[name] = None
from lightvla_ros.cli import main
sys.exit(main(["doctor", {bundle!r}, "--json", "--no-graph"]))
"""


def doctor(bundle: str = "mini", missing: tuple[str, ...] = ()) -> tuple[int, dict[str, Finding], str]:
    """Run the command in an interpreter without some modules; return its exit code, findings and text."""
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(missing=missing, bundle=bundle)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert not result.stderr, result.stderr
    *text, last = result.stdout.splitlines()
    found = [Finding(**finding) for finding in json.loads(last)["findings"]]
    assert json.loads(last)["passed"] == (result.returncode == 0)
    return result.returncode, {f.text.partition(":")[0]: f for f in found}, "\n".join(text)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A copy of mini without its plans."""
    return shutil.copytree(
        engine_directory("mini"), tmp_path / "mini", ignore=shutil.ignore_patterns("plans")
    )


def of_bundle(directory: Path) -> list[Finding]:
    return [finding for finding in findings(str(directory)) if finding.section == "bundle"]


def write_plans(bundle: Path, **changes: str) -> PlanSet:
    """Write a plan set of the right form; its plans hold a few bytes."""
    fingerprint = Fingerprint(
        flavour="tensorrt",
        tensorrt_version="10.13.0",
        cuda_version="12",
        target="sm_86",
        precision="bfloat16",
        flags={},
        bundle_hash=Manifest.read(bundle).content_hash,
    )
    directory = bundle / "plans" / "sm_86-tensorrt-bfloat16"
    directory.mkdir(parents=True)
    parts = {}
    for name in PARTS:
        path = directory / f"{name}.plan"
        path.write_bytes(name.encode())
        file = describe_file(path)
        parts[name] = PlanPart(file=file.name, num_bytes=file.num_bytes, sha256=file.sha256)
    plan_set = PlanSet(directory=directory, fingerprint=replace(fingerprint, **changes), parts=parts)
    plan_set.write()
    return plan_set


def test_a_whole_installation_has_no_errors() -> None:
    code, found, text = doctor()
    assert code == 0
    assert found["onnxruntime"].level == "ok"
    assert {finding.section for finding in found.values()} == {
        "package",
        "ROS",
        "machine",
        "backends",
        "bundle",
    }
    assert "0 errors" in text


@pytest.mark.parametrize(
    ("modules", "name", "fix"),
    [
        (("torch",), "torch", "lightvla_ros[torch]"),
        (("tensorrt",), "tensorrt", "lightvla_ros[tensorrt]"),
        (("tensorrt_rtx",), "tensorrt-rtx", "lightvla_ros[tensorrt-rtx]"),
    ],
)
def test_a_missing_optional_backend_is_a_note_with_the_command_that_gets_it(
    modules: tuple[str, ...], name: str, fix: str
) -> None:
    code, found, text = doctor(missing=modules)
    assert code == 0
    assert found[name].level == "note"
    assert modules[0] in found[name].text
    assert fix in found[name].fix
    assert found[name].fix in text


def test_without_onnxruntime_the_installation_is_broken() -> None:
    code, found, text = doctor(missing=("onnxruntime",))
    assert code == 1
    assert (found["onnxruntime"].level, found["onnxruntime"].fix) == ("error", "pip install onnxruntime")
    assert "1 error," in text


def test_without_ros_the_rest_is_still_looked_at() -> None:
    code, found, _ = doctor(missing=("rclpy",))
    warnings = [finding for finding in found.values() if finding.level == "warning"]
    assert code == 0
    assert [finding.section for finding in warnings] == ["ROS"]
    assert "setup.bash" in warnings[0].fix


def test_a_bundle_that_is_not_there_is_an_error() -> None:
    code, _, text = doctor(bundle="no_such_engine")
    assert code == 1
    assert "no_such_engine" in text


def test_a_damaged_bundle_is_an_error_that_names_the_file(bundle: Path) -> None:
    with (bundle / "decoder.onnx").open("r+b") as stream:
        stream.truncate(1000)
    found = of_bundle(bundle)
    assert [finding.level for finding in found] == ["error"]
    assert "decoder.onnx: 1000 bytes" in found[0].text
    assert found[0].fix


def test_a_bundle_without_tokenizer_is_a_warning(bundle: Path) -> None:
    (bundle / "tokenizer.json").unlink()
    assert ["ok", "warning"] == [finding.level for finding in of_bundle(bundle)]


def test_plans_for_machines_with_a_gpu_are_a_note_here(bundle: Path) -> None:
    write_plans(bundle)
    found = of_bundle(bundle)[-1]
    assert found.text.startswith("plans sm_86-tensorrt-bfloat16")
    assert found.level in {"note", "warning"}  # a warning where TensorRT and a GPU are there


def test_plans_of_another_export_are_a_warning(bundle: Path) -> None:
    write_plans(bundle, bundle_hash="0" * 64)
    found = of_bundle(bundle)[-1]
    assert found.level == "warning"
    assert "lightvla build" in found.fix


def test_damaged_plans_are_a_warning(bundle: Path) -> None:
    plan_set = write_plans(bundle)
    (plan_set.directory / "vision.plan").write_bytes(b"other!")
    found = of_bundle(bundle)[-1]
    assert (found.level, "vision.plan" in found.text) == ("warning", True)
