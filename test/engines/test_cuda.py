"""The CUDA surface: without a GPU, and against the signatures of the installed cuda-python."""

from __future__ import annotations

import ctypes
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from cuda.bindings import runtime as real

from lightvla_ros.backends.tensorrt import cuda
from lightvla_ros.backends.tensorrt.cuda import CudaDevice, device_info
from lightvla_ros.core.errors import EngineError

HAS_GPU = bool(real.cudaGetDeviceCount()[1])
without_gpu = pytest.mark.skipif(HAS_GPU, reason="says what happens without a GPU")
ERROR = real.cudaError_t


class BindingsDouble:
    """A DOUBLE of cuda-python on a machine without a driver.

    Every call goes to the real binding first, which checks the arguments' number and types and then fails for
    want of a driver; what a GPU would have answered comes from here, with host memory as device memory.
    """

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.fail: dict[str, Any] = {}
        self._memory: dict[int, Any] = {}
        self._recording: list[Callable[[], None]] | None = None
        self._graphs: dict[int, list[Callable[[], None]]] = {}

    def __getattr__(self, name: str) -> Any:
        binding = getattr(real, name)
        if not callable(binding) or isinstance(binding, type):
            return binding

        def call(*arguments: Any) -> tuple[Any, ...]:
            binding(*arguments)
            self.calls[name] += 1
            if name in self.fail:
                return (self.fail[name], None)
            result = getattr(type(self), f"_{name}", lambda *_: ())(self, *arguments)
            return (ERROR.cudaSuccess, *result)

        return call

    @property
    def live_allocations(self) -> int:
        return len(self._memory)

    def _allocate(self, num_bytes: int, _flags: int = 0) -> tuple[int]:
        buffer = ctypes.create_string_buffer(num_bytes)
        self._memory[ctypes.addressof(buffer)] = buffer
        return (ctypes.addressof(buffer),)

    def _free(self, address: int) -> tuple[()]:
        del self._memory[address]
        return ()

    _cudaMalloc = _cudaHostAlloc = _allocate  # noqa: N815  # CUDA's names
    _cudaFree = _cudaFreeHost = _free  # noqa: N815

    def _cudaGetDeviceCount(self) -> tuple[int]:  # noqa: N802
        return (1,)

    def _cudaGetDeviceProperties(self, _device: int) -> tuple[Any]:  # noqa: N802
        properties = real.cudaDeviceProp()
        properties.name = b"Bindings double".ljust(256, b"\0")
        properties.major, properties.minor = 8, 9
        return (properties,)

    def _cudaMemGetInfo(self) -> tuple[int, int]:  # noqa: N802
        return 3, 4

    def _cudaDriverGetVersion(self) -> tuple[int]:  # noqa: N802
        return (13010,)

    def _cudaRuntimeGetVersion(self) -> tuple[int]:  # noqa: N802
        return (12060,)

    def _cudaStreamCreateWithFlags(self, _flags: int) -> tuple[Any]:  # noqa: N802
        return (real.cudaStream_t(7),)

    def _cudaMemcpyAsync(self, target: int, source: int, count: int, *_: Any) -> tuple[()]:  # noqa: N802
        return self._put(lambda: ctypes.memmove(target, source, count))

    def _cudaMemsetAsync(self, target: int, value: int, count: int, _: Any) -> tuple[()]:  # noqa: N802
        return self._put(lambda: ctypes.memset(target, value, count))

    def _cudaStreamBeginCapture(self, *_: Any) -> tuple[()]:  # noqa: N802
        self._recording = []
        return ()

    def _cudaStreamEndCapture(self, _stream: Any) -> tuple[Any]:  # noqa: N802
        number = len(self._graphs) + 1
        self._graphs[number], self._recording = self._recording or [], None
        return (real.cudaGraph_t(number),)

    def _cudaGraphInstantiate(self, graph: Any, _flags: int) -> tuple[Any]:  # noqa: N802
        return (real.cudaGraphExec_t(int(graph)),)

    def _cudaGraphLaunch(self, graph: Any, _stream: Any) -> tuple[()]:  # noqa: N802
        for operation in self._graphs[int(graph)]:
            operation()
        return ()

    def _put(self, operation: Callable[[], Any]) -> tuple[()]:
        if self._recording is None:
            operation()
        else:
            self._recording.append(operation)
        return ()


@pytest.fixture
def bindings(monkeypatch: pytest.MonkeyPatch) -> BindingsDouble:
    if HAS_GPU:
        pytest.skip("a GPU is here: test_tensorrt_gpu.py runs the real thing")
    double = BindingsDouble()
    monkeypatch.setattr(cuda, "_bindings", lambda: double)
    return double


@without_gpu
def test_without_a_gpu_the_error_says_what_to_do() -> None:
    for make in (CudaDevice, device_info):
        with pytest.raises(EngineError, match=r"CUDA; got .*nvidia-smi.*onnxruntime"):
            make()


def test_the_device_is_described(bindings: BindingsDouble) -> None:
    info = device_info()
    assert (info.name, info.target) == ("Bindings double", "sm_89")
    assert (info.driver_version, info.runtime_version) == ((13, 1), (12, 6))
    assert (info.free_bytes, info.total_bytes) == (3, 4)
    assert CudaDevice().info() == info


def test_arrays_travel_to_the_device_and_back(bindings: BindingsDouble) -> None:
    device = CudaDevice()
    sent, back = device.allocate_host((2, 3), np.float32), device.allocate_host((2, 3), np.float32)
    assert (sent == 0).all()
    address = device.allocate(sent.nbytes)
    sent[...] = np.arange(6).reshape(2, 3)
    device.upload(address, sent)
    device.zero(address, 8)
    device.download(back, address)
    device.synchronize()
    np.testing.assert_array_equal(back, [[0, 0, 2], [3, 4, 5]])
    assert device.stream == 7
    assert bindings.calls["cudaStreamSynchronize"] == 1


def test_a_graph_replays_what_was_captured(bindings: BindingsDouble) -> None:
    device = CudaDevice()
    sent, back = device.allocate_host((1,), np.int64), device.allocate_host((1,), np.int64)
    address = device.allocate(8)

    def copy() -> None:
        device.upload(address, sent)
        device.download(back, address)

    graph = device.capture(copy)
    sent[0] = 5
    assert back[0] == 0
    device.launch(graph)
    assert back[0] == 5


def test_a_failed_capture_is_ended_and_forgotten(bindings: BindingsDouble) -> None:
    device = CudaDevice()

    def body() -> None:
        raise EngineError("enqueue", got="refused")

    with pytest.raises(EngineError, match="refused"):
        device.capture(body)
    assert bindings.calls["cudaStreamEndCapture"] == bindings.calls["cudaGraphDestroy"] == 1
    bindings.fail["cudaStreamEndCapture"] = ERROR.cudaErrorStreamCaptureInvalidated
    with pytest.raises(EngineError, match=r"cudaStreamEndCapture\(\); got cudaErrorStreamCaptureInvalidated"):
        device.capture(lambda: None)
    with pytest.raises(EngineError, match="refused"):
        device.capture(body)
    assert bindings.calls["cudaGetLastError"] == 2


def test_closing_frees_everything_once(bindings: BindingsDouble) -> None:
    device = CudaDevice()
    device.allocate(10)
    device.allocate_host((3,), np.int64)
    device.capture(lambda: None)
    assert bindings.live_allocations == 2
    device.close()
    device.close()
    assert bindings.live_allocations == 0
    assert bindings.calls["cudaGraphExecDestroy"] == bindings.calls["cudaStreamDestroy"] == 1


def test_an_error_has_cudas_name_and_a_way_out(bindings: BindingsDouble) -> None:
    device = CudaDevice()
    bindings.fail["cudaMalloc"] = ERROR.cudaErrorMemoryAllocation
    with pytest.raises(
        EngineError, match=r"cudaMalloc\(77\); got cudaErrorMemoryAllocation.*free GPU memory"
    ):
        device.allocate(77)
    bindings.fail["cudaStreamSynchronize"] = ERROR.cudaErrorIllegalAddress
    with pytest.raises(EngineError, match=r"cudaErrorIllegalAddress.*load the policy again"):
        device.synchronize()
    device.close()
    assert bindings.live_allocations == 0
