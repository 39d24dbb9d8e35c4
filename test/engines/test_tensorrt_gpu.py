"""The TensorRT engine's cases on a GPU, with plans that TensorRT or TensorRT-RTX builds for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tensorrt_cases import EngineCases, Rig

from lightvla_ros.backends.manifest import Manifest
from lightvla_ros.backends.onnxruntime_engine import OrtEngine
from lightvla_ros.backends.tensorrt.api import load
from lightvla_ros.backends.tensorrt.build import build_plans
from lightvla_ros.backends.tensorrt.cuda import CudaDevice, device_info
from lightvla_ros.backends.tensorrt.engine import TensorRtEngine
from lightvla_ros.backends.tensorrt.runtime import TensorRtRuntime, machine
from lightvla_ros.core.errors import EngineError
from lightvla_ros.core.paths import engine_directory

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module", autouse=True)
def gpu() -> None:
    try:
        device_info()
    except EngineError as e:
        pytest.skip(str(e))


@pytest.fixture(scope="module", params=["tensorrt", "tensorrt-rtx"])
def flavour(request: pytest.FixtureRequest) -> str:
    try:
        load(request.param)
    except EngineError as e:
        pytest.skip(str(e))
    return request.param


# (precision, tolerance of actions, IoU of retained sets): half precision flips tokens near ties.
@pytest.fixture(scope="module", params=[("float32", 1e-2, 0.95), ("bfloat16", 5e-2, 0.8)])
def rig(
    request: pytest.FixtureRequest, flavour: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Rig]:
    precision, tolerance, min_iou = request.param
    bundle, out = engine_directory("mini"), tmp_path_factory.mktemp("plans") / "plans"
    manifest = Manifest.read(bundle)
    plans = build_plans(bundle, flavour=flavour, precision=precision, targets=["current"], out=out)
    engine = TensorRtEngine(bundle, manifest, plans[0])
    reference = OrtEngine(bundle, manifest, num_threads=1)
    yield Rig(manifest, reference, engine, tolerance, min_iou)
    engine.close()


class TestOnTheGpu(EngineCases):
    """Every case, on a GPU."""


def test_machine_is_the_one_plans_are_checked_against(flavour: str) -> None:
    assert machine(flavour).target == device_info().target


def test_memory_goes_to_the_device_and_back() -> None:
    device = CudaDevice()
    sent, back = device.allocate_host((3, 5), np.float32), device.allocate_host((3, 5), np.float32)
    address = device.allocate(sent.nbytes)
    sent[...] = np.arange(15).reshape(3, 5)
    device.upload(address, sent)
    device.download(back, address)
    device.synchronize()
    np.testing.assert_array_equal(back, sent)
    device.zero(address, 20)
    device.download(back, address)
    device.synchronize()
    assert (back[0] == 0).all()
    assert back[1, 0] == 5
    device.close()


def test_a_graph_replays_its_copies_with_what_the_host_memory_holds_then() -> None:
    device = CudaDevice()
    sent, back = device.allocate_host((4,), np.int64), device.allocate_host((4,), np.int64)
    address = device.allocate(sent.nbytes)

    def copy() -> None:
        device.upload(address, sent)
        device.download(back, address)

    graph = device.capture(copy)
    for value in (3, 4):
        sent[...] = value
        device.launch(graph)
        device.synchronize()
        assert (back == value).all()
    device.close()


def test_a_failed_capture_leaves_the_stream_usable() -> None:
    device = CudaDevice()
    with pytest.raises(EngineError, match="StreamCapture"):
        device.capture(device.synchronize)
    address, host = device.allocate(8), device.allocate_host((1,), np.int64)
    device.upload(address, host)
    device.synchronize()
    device.close()


def test_too_much_memory_is_an_engine_error() -> None:
    device = CudaDevice()
    with pytest.raises(EngineError, match="cudaErrorMemoryAllocation"):
        device.allocate(1 << 50)
    device.close()


def test_a_file_that_is_no_plan_is_refused(flavour: str, tmp_path: Path) -> None:
    path = tmp_path / "vision.plan"
    path.write_bytes(b"no plan" * 100)
    device = CudaDevice()
    with pytest.raises(EngineError, match="can load on this GPU"):
        TensorRtRuntime(flavour).load(path, device)
    device.close()
