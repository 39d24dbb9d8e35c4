"""The real TensorRT side as far as it goes without a GPU: loading, and what it says when it cannot."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from cuda_double import CudaDouble

from lightvla_ros.backends.manifest import Manifest
from lightvla_ros.backends.tensorrt.build import build_plans
from lightvla_ros.backends.tensorrt.cuda import device_info
from lightvla_ros.backends.tensorrt.engine import TensorRtEngine
from lightvla_ros.backends.tensorrt.runtime import TensorRtRuntime, machine
from lightvla_ros.core.errors import BundleError, EngineError

pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
FLAVOUR = "tensorrt-rtx"


@pytest.fixture(autouse=True)
def without_gpu() -> None:
    try:
        device_info()
    except EngineError:
        return
    pytest.skip("says what happens without a GPU")


def test_a_file_that_is_no_plan_is_refused_with_tensorrts_reason(tmp_path: Path) -> None:
    path = tmp_path / "vision.plan"
    path.write_bytes(b"no plan" * 100)
    with pytest.raises(EngineError, match=r"vision\.plan.*kEXPECTED_MAGIC_TAG.*can load on this GPU"):
        TensorRtRuntime(FLAVOUR).load(path, CudaDouble())


def test_a_real_plan_that_cannot_be_loaded_names_the_reason_and_the_command(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    (plans,) = build_plans(tiny_bundle, flavour=FLAVOUR, targets=["sm_86"], out=tmp_path / "plans")
    device = CudaDouble()  # an sm_86, as far as it says
    with pytest.raises(BundleError, match=rf"(?i)prompt\.plan.*cuda.*lightvla build {tiny_bundle}"):
        TensorRtEngine(
            tiny_bundle,
            Manifest.read(tiny_bundle),
            plans,
            device=device,
            runtime=TensorRtRuntime(FLAVOUR),
        )
    assert device.allocated_bytes == 0


def test_without_a_gpu_there_is_no_machine_to_build_for() -> None:
    with pytest.raises(EngineError, match="nvidia-smi"):
        machine(FLAVOUR)


def test_a_library_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(EngineError, match=r"backend 'tensorrt'.*pip install"):
        TensorRtRuntime("tensorrt")
