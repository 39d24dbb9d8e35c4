"""The CUDA surface of the TensorRT engine: one device, one stream, memory, copies and graphs.

Over cuda-python (`cuda.bindings.runtime`, 12.6 or newer), without torch. `Device` is what the engine needs
of it.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from lightvla_ros.core.errors import EngineError

# CUDA_VISIBLE_DEVICES chooses among several GPUs: the runtime's current device belongs to a thread, and
# an engine may be built in one thread and used in another.
_DEVICE = 0
_NON_BLOCKING = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceInfo:
    """A GPU and its driver.

    Attributes:
        name: as the driver gives it.
        compute_capability: (major, minor).
        driver_version: newest CUDA the driver serves, (major, minor).
        runtime_version: CUDA runtime in this process, (major, minor).
        free_bytes: device memory nobody uses.
        total_bytes: device memory.
    """

    name: str
    compute_capability: tuple[int, int]
    driver_version: tuple[int, int]
    runtime_version: tuple[int, int]
    free_bytes: int
    total_bytes: int

    @property
    def target(self) -> str:
        """The compute capability as a build target, for example "sm_86"."""
        major, minor = self.compute_capability
        return f"sm_{major}{minor}"


class Device(Protocol):
    """One stream of one GPU, and memory that lives until `close`.

    Everything is in stream order; only `synchronize` waits. Every method raises `EngineError` with the name
    of the CUDA error.
    """

    @property
    def stream(self) -> int:
        """Handle of the stream."""
        ...

    def info(self) -> DeviceInfo:
        """Describe the GPU."""
        ...

    def allocate(self, num_bytes: int) -> int:
        """Return the address of new device memory of unknown content, aligned to 256 bytes."""
        ...

    def allocate_host(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """Return a zeroed array in page-locked host memory."""
        ...

    def upload(self, address: int, source: NDArray[Any]) -> None:
        """Copy a page-locked array to the device; it must not change before the stream got there."""
        ...

    def download(self, target: NDArray[Any], address: int) -> None:
        """Copy from the device into a page-locked array, which is valid after `synchronize`."""
        ...

    def zero(self, address: int, num_bytes: int) -> None:
        """Write zeros."""
        ...

    def synchronize(self) -> None:
        """Wait for all that was put on the stream."""
        ...

    def capture(self, body: Callable[[], None]) -> Any:
        """Record what `body` puts on the stream, without running it, as a graph for `launch`."""
        ...

    def launch(self, graph: Any) -> None:
        """Put a captured graph on the stream."""
        ...

    def close(self) -> None:
        """Free graphs, memory and the stream; waits for the stream first."""
        ...


class CudaDevice:
    """`Device` on the first visible GPU.

    Raises:
        EngineError: cuda-python is missing, or there is no usable GPU or driver.
    """

    def __init__(self) -> None:
        self._runtime = _bindings()
        _require_gpu(self._runtime)
        self._call("cudaSetDevice", _DEVICE)
        self._stream: Any = self._call("cudaStreamCreateWithFlags", _NON_BLOCKING)
        self._kinds = self._runtime.cudaMemcpyKind
        self._memory: list[int] = []
        self._host_memory: list[int] = []
        self._graphs: list[Any] = []

    @property
    def stream(self) -> int:
        """Handle of the stream."""
        return int(self._stream)

    def info(self) -> DeviceInfo:
        """Describe the GPU; see `Device.info`."""
        return _info(self._runtime)

    def allocate(self, num_bytes: int) -> int:
        """Return the address of new device memory; see `Device.allocate`."""
        address = int(self._call("cudaMalloc", max(1, num_bytes)))
        self._memory.append(address)
        return address

    def allocate_host(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """Return a zeroed array in page-locked memory; see `Device.allocate_host`."""
        num_bytes = math.prod(shape) * np.dtype(dtype).itemsize
        address = int(self._call("cudaHostAlloc", num_bytes, 0))
        self._host_memory.append(address)
        memory = np.ctypeslib.as_array((ctypes.c_byte * num_bytes).from_address(address))
        array: NDArray[Any] = memory.view(dtype).reshape(shape)
        array[...] = 0
        return array

    def upload(self, address: int, source: NDArray[Any]) -> None:
        """Copy a page-locked array to the device; see `Device.upload`."""
        self._copy(address, source.ctypes.data, source.nbytes, self._kinds.cudaMemcpyHostToDevice)

    def download(self, target: NDArray[Any], address: int) -> None:
        """Copy from the device into a page-locked array; see `Device.download`."""
        self._copy(target.ctypes.data, address, target.nbytes, self._kinds.cudaMemcpyDeviceToHost)

    def zero(self, address: int, num_bytes: int) -> None:
        """Write zeros; see `Device.zero`."""
        self._call("cudaMemsetAsync", address, 0, num_bytes, self._stream)

    def synchronize(self) -> None:
        """Wait for all that was put on the stream."""
        self._call("cudaStreamSynchronize", self._stream)

    def capture(self, body: Callable[[], None]) -> Any:
        """Record what `body` puts on the stream; see `Device.capture`."""
        # Thread local: what other threads of the process do meanwhile must not break the capture.
        mode = self._runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._call("cudaStreamBeginCapture", self._stream, mode)
        try:
            body()
        except BaseException:
            self._abandon_capture()
            raise
        recorded = self._call("cudaStreamEndCapture", self._stream)
        try:
            graph = self._call("cudaGraphInstantiate", recorded, 0)
        finally:
            self._call("cudaGraphDestroy", recorded)
        self._graphs.append(graph)
        self._call("cudaGraphUpload", graph, self._stream)  # or the first launch would pay for it
        return graph

    def launch(self, graph: Any) -> None:
        """Put a captured graph on the stream."""
        self._call("cudaGraphLaunch", graph, self._stream)

    def close(self) -> None:
        """Free graphs, memory and the stream; a second call does nothing."""
        if self._stream is None:
            return
        # A broken device fails every call; what can be freed is freed all the same.
        runtime, stream = self._runtime, self._stream
        self._stream = None
        runtime.cudaStreamSynchronize(stream)
        for graph in self._graphs:
            runtime.cudaGraphExecDestroy(graph)
        for address in self._memory:
            runtime.cudaFree(address)
        for address in self._host_memory:
            runtime.cudaFreeHost(address)
        runtime.cudaStreamDestroy(stream)
        for held in (self._graphs, self._memory, self._host_memory):
            held.clear()

    def _copy(self, target: int, source: int, num_bytes: int, kind: Any) -> None:
        self._call("cudaMemcpyAsync", target, source, num_bytes, kind, self._stream)

    def _abandon_capture(self) -> None:
        error, graph = self._runtime.cudaStreamEndCapture(self._stream)
        if error == self._runtime.cudaError_t.cudaSuccess:
            self._runtime.cudaGraphDestroy(graph)
        self._runtime.cudaGetLastError()  # or the next call would report the capture's error

    def _call(self, name: str, *arguments: Any) -> Any:
        return _call(self._runtime, name, *arguments)


def device_info() -> DeviceInfo:
    """Describe the first visible GPU without using it.

    Raises:
        EngineError: cuda-python is missing, or there is no usable GPU or driver.
    """
    runtime = _bindings()
    _require_gpu(runtime)
    return _info(runtime)


def _bindings() -> Any:
    try:
        from cuda.bindings import runtime
    except ImportError as e:
        raise EngineError(
            "CUDA", got=str(e), expected="cuda-python 12.6 or newer", fix="pip install cuda-bindings"
        ) from e
    return runtime


def _require_gpu(runtime: Any) -> None:
    error, count = runtime.cudaGetDeviceCount()
    if error != runtime.cudaError_t.cudaSuccess or not count:
        raise EngineError(
            "CUDA",
            got=error.name if count is None else f"{count} GPUs",
            expected="an NVIDIA GPU and a driver for the installed cuda-bindings",
            fix="check `nvidia-smi`; `pip install 'cuda-bindings<13'` for a driver of CUDA 12; "
            "or use backend 'onnxruntime'",
        )


def _info(runtime: Any) -> DeviceInfo:
    properties = _call(runtime, "cudaGetDeviceProperties", _DEVICE)
    free, total = _call(runtime, "cudaMemGetInfo")
    return DeviceInfo(
        name=properties.name.rstrip(b"\0").decode(),
        compute_capability=(properties.major, properties.minor),
        driver_version=_version(_call(runtime, "cudaDriverGetVersion")),
        runtime_version=_version(_call(runtime, "cudaRuntimeGetVersion")),
        free_bytes=free,
        total_bytes=total,
    )


def _version(number: int) -> tuple[int, int]:
    """Split CUDA's 1000 * major + 10 * minor."""
    return number // 1000, number % 1000 // 10


def _call(runtime: Any, name: str, *arguments: Any) -> Any:
    """Call the CUDA runtime; its functions return (error, values...)."""
    error, *values = getattr(runtime, name)(*arguments)
    if error == runtime.cudaError_t.cudaSuccess:
        return values[0] if len(values) == 1 else tuple(values)
    numbers = ", ".join(str(argument) for argument in arguments if type(argument) is int)
    if error == runtime.cudaError_t.cudaErrorMemoryAllocation:
        fix = "free GPU memory (see `nvidia-smi`), or build with fewer length buckets or in half precision"
    else:
        fix = "load the policy again; if it stays, check the GPU with `nvidia-smi` and `dmesg`"
    raise EngineError(f"{name}({numbers})", got=error.name, expected="cudaSuccess", fix=fix)
