"""A DOUBLE of CUDA and TensorRT for machines without a GPU.

`CudaDouble` stands in for `backends.cuda.CudaDevice`: device memory is NumPy bytes at made-up addresses,
poisoned with NaN, and the stream runs as late as it may, at `synchronize`. `RuntimeDouble` stands in for
TensorRT: its plans execute the ONNX part on that memory with ONNX Runtime, within the plan's profiles.
Both refuse what CUDA and TensorRT refuse or leave undefined. Everything else under test is the real thing.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import DTypeLike, NDArray

from lightvla_ros.backends.tensorrt.cuda import DeviceInfo
from lightvla_ros.backends.tensorrt.plan import Machine
from lightvla_ros.backends.tensorrt.stage import DTYPE_BYTES, PlanTensor, Shape, ShapeRange
from lightvla_ros.core.errors import EngineError

WORKSPACE_BYTES = 4096
VERSION = "10.13.0"
_POISON = 0xFF  # all bits set: NaN in every float format, -1 as an integer
_GAP = 4096  # between allocations, so that an overrun hits nothing
_ORT_DTYPES = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(int64)": "int64"}

Operation = Callable[[], None]


def refused(what: str, error: str) -> EngineError:
    return EngineError(what, got=error, expected="cudaSuccess")


@dataclass(eq=False)
class GraphDouble:
    """Operations to replay, and the contexts they were captured from, as they were then."""

    operations: list[Operation]
    contexts: list[tuple[ContextDouble, int]]


class CudaDouble:
    """Stands in for `CudaDevice`; counts what tests ask about."""

    stream = 7

    def __init__(self, total_bytes: int = 1 << 30) -> None:
        self.total_bytes = total_bytes
        self.num_uploads = 0
        self.num_allocations = self.num_captures = self.num_launches = self.num_synchronizations = 0
        self._memory: dict[int, NDArray[np.uint8]] = {}
        self._host: list[NDArray[Any]] = []
        self._next_address = 1 << 32
        self._queue: list[Operation] = []
        self._recording: GraphDouble | None = None
        self._graphs: list[GraphDouble] = []
        self._capture_broken = False
        self._closed = False

    @property
    def allocated_bytes(self) -> int:
        """Device and page-locked memory that is not freed yet."""
        return sum(m.nbytes for m in self._memory.values()) + sum(h.nbytes for h in self._host)

    @property
    def is_capturing(self) -> bool:
        return self._recording is not None

    def poison(self) -> None:
        """Overwrite all device memory as if it had never been written."""
        for memory in self._memory.values():
            memory[...] = _POISON

    def info(self) -> DeviceInfo:
        return DeviceInfo(
            name="CUDA double",
            compute_capability=(8, 6),
            driver_version=(13, 0),
            runtime_version=(12, 9),
            free_bytes=self.total_bytes - self.allocated_bytes,
            total_bytes=self.total_bytes,
        )

    def allocate(self, num_bytes: int) -> int:
        self._allocating("cudaMalloc")
        if self.allocated_bytes + num_bytes > self.total_bytes:
            raise refused("cudaMalloc", "cudaErrorMemoryAllocation")
        address = self._next_address
        self._memory[address] = np.full(num_bytes, _POISON, dtype=np.uint8)
        self._next_address += -(-(num_bytes + _GAP) // 256) * 256
        return address

    def allocate_host(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        self._allocating("cudaHostAlloc")
        self._host.append(np.zeros(shape, dtype=dtype))
        return self._host[-1]

    def upload(self, address: int, source: NDArray[Any]) -> None:
        self._check_page_locked(source)
        target = self.memory(address, source.nbytes)
        self.num_uploads += 1
        self.put(lambda: np.copyto(target, np.frombuffer(source.tobytes(), dtype=np.uint8)))

    def download(self, target: NDArray[Any], address: int) -> None:
        self._check_page_locked(target)
        source = self.memory(address, target.nbytes)
        self.put(lambda: np.copyto(target, source.view(target.dtype).reshape(target.shape)))

    def zero(self, address: int, num_bytes: int) -> None:
        self.memory(address, num_bytes)
        self.put(lambda: self.memory(address, num_bytes).fill(0))

    def synchronize(self) -> None:
        self._check_open()
        if self.is_capturing:
            self._capture_broken = True
            raise refused("cudaStreamSynchronize", "cudaErrorStreamCaptureUnsupported")
        self.num_synchronizations += 1
        queue, self._queue = self._queue, []
        for operation in queue:
            operation()

    def capture(self, body: Callable[[], None]) -> GraphDouble:
        self._check_open()
        if self.is_capturing:
            raise refused("cudaStreamBeginCapture", "cudaErrorIllegalState")
        self.num_captures += 1
        graph = self._recording = GraphDouble([], [])
        self._capture_broken = False
        try:
            body()
        finally:
            self._recording = None
        if self._capture_broken:
            raise refused("cudaStreamEndCapture", "cudaErrorStreamCaptureInvalidated")
        self._graphs.append(graph)
        return graph

    def launch(self, graph: GraphDouble) -> None:
        self._check_open()
        if graph not in self._graphs:
            raise refused("cudaGraphLaunch", "cudaErrorInvalidValue")
        for context, version in graph.contexts:
            if context.version != version:
                raise refused("cudaGraphLaunch", "undefined: its context has changed since the capture")
        self.num_launches += 1
        for operation in graph.operations:
            self.put(operation)

    def close(self) -> None:
        if self._closed:
            return
        self.synchronize()
        self._memory.clear()
        self._host.clear()
        self._graphs.clear()
        self._closed = True

    # -- for the plans of this double ----------------------------------------------------------------

    def memory(self, address: int, num_bytes: int) -> NDArray[np.uint8]:
        """Return the bytes at an address, which must all lie in one live allocation."""
        self._check_open()
        for start, memory in self._memory.items():
            offset = address - start
            if offset >= 0 and offset + num_bytes <= memory.nbytes:
                return memory[offset : offset + num_bytes]
        raise refused(f"{num_bytes} bytes at {address:#x}", "cudaErrorIllegalAddress")

    def put(self, operation: Operation, context: ContextDouble | None = None) -> None:
        """Put an operation on the stream, or into the graph that is being captured."""
        self._check_open()
        if self._recording is None:
            self._queue.append(operation)
            return
        self._recording.operations.append(operation)
        if context is not None:
            self._recording.contexts.append((context, context.version))

    def _allocating(self, call: str) -> None:
        self._check_open()
        if self.is_capturing:
            self._capture_broken = True
            raise refused(call, "cudaErrorStreamCaptureUnsupported")
        self.num_allocations += 1

    def _check_page_locked(self, array: NDArray[Any]) -> None:
        # Pageable memory works in CUDA outside of captures, but then copies are not asynchronous.
        if not any(np.shares_memory(array, host) for host in self._host):
            raise refused("cudaMemcpyAsync", "pageable or freed host memory")

    def _check_open(self) -> None:
        if self._closed:
            raise refused("CUDA", "cudaErrorContextIsDestroyed")


class ContextDouble:
    """Stands in for an execution context."""

    def __init__(self, plan: PlanDouble, profile: int, workspace: int, *, can_capture: bool) -> None:
        self._plan, self._profile, self._workspace = plan, profile, workspace
        self._may_capture = can_capture
        self._bound: tuple[dict[str, Shape], dict[str, int]] | None = None
        self._settled = False
        self.version = 0

    @property
    def can_capture(self) -> bool:
        return self._may_capture and self._shapes() not in self._plan.runtime.not_capturable

    def bind(self, shapes: Mapping[str, Shape], addresses: Mapping[str, int]) -> None:
        ranges = self._plan.profiles[self._profile]
        for name, shape in shapes.items():
            if shape not in ranges[name]:
                raise refused(f"set_input_shape({name})", f"{shape} is outside of profile {self._profile}")
        if addresses.keys() != self._plan.tensors.keys():
            raise refused("set_tensor_address", f"{sorted(addresses)}")
        self._bound = dict(shapes), dict(addresses)
        self._settled = False
        self.version += 1

    def enqueue(self) -> None:
        device = self._plan.device
        if self._bound is None or self._plan.closed:
            raise refused("execute_async_v3", "nothing is bound, or the plan is closed")
        if device.is_capturing and (not self._settled or self._shapes() in self._plan.runtime.breaks_capture):
            raise refused("execute_async_v3", "cudaErrorStreamCaptureUnsupported")
        self._settled = True
        shapes, addresses = self._bound
        device.put(lambda: self._plan.execute(shapes, addresses, self._workspace), self)

    def _shapes(self) -> tuple[Shape, ...]:
        assert self._bound is not None
        dynamic = [n for n, t in self._plan.tensors.items() if t.is_input and min(t.shape, default=0) < 0]
        return tuple(self._bound[0][name] for name in dynamic)


class PlanDouble:
    """Stands in for a deserialised plan: executes the ONNX part."""

    def __init__(
        self, runtime: RuntimeDouble, device: CudaDouble, onnx: Path, profiles: list[dict[str, ShapeRange]]
    ) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
        self.runtime, self.device, self.profiles = runtime, device, profiles
        self.tensors = {
            value.name: PlanTensor(
                dtype=_ORT_DTYPES[value.type],
                shape=tuple(size if isinstance(size, int) else -1 for size in value.shape),
                is_input=is_input,
            )
            for is_input, values in (
                (True, self._session.get_inputs()),
                (False, self._session.get_outputs()),
            )
            for value in values
        }
        self.workspace_bytes = WORKSPACE_BYTES
        self.closed = False

    def create_context(self, profile: int, workspace: int, *, for_capture: bool) -> ContextDouble:
        self.device.memory(workspace, self.workspace_bytes)
        self.runtime.num_contexts += 1
        return ContextDouble(self, profile, workspace, can_capture=for_capture)

    def execute(self, shapes: Mapping[str, Shape], addresses: Mapping[str, int], workspace: int) -> None:
        if self.closed:
            raise refused("execute_async_v3", "the plan was freed before the stream got there")
        feed = {name: self._view(name, shape, addresses[name]).copy() for name, shape in shapes.items()}
        names = [name for name, tensor in self.tensors.items() if not tensor.is_input]
        self.device.memory(workspace, self.workspace_bytes)[...] = _POISON
        for name, result in zip(names, self._session.run(names, feed), strict=True):
            self._view(name, result.shape, addresses[name])[...] = self.runtime.spoil.get(name, result)

    def close(self) -> None:
        self.closed = True

    def _view(self, name: str, shape: Shape, address: int) -> NDArray[Any]:
        dtype = self.tensors[name].dtype
        memory = self.device.memory(address, math.prod(shape) * DTYPE_BYTES[dtype])
        return memory.view(dtype).reshape(shape)


class RuntimeDouble:
    """Stands in for TensorRT.

    Args:
        not_capturable: shapes of dynamic inputs for which it says beforehand that it cannot be captured.
        breaks_capture: those for which it fails while it is captured.

    `spoil` maps an output's name to a value that overwrites its results.
    """

    def __init__(
        self,
        *,
        not_capturable: Sequence[tuple[Shape, ...]] = (),
        breaks_capture: Sequence[tuple[Shape, ...]] = (),
    ) -> None:
        self.not_capturable, self.breaks_capture = not_capturable, breaks_capture
        self.spoil: dict[str, int] = {}
        self.num_contexts = 0

    def machine(self, device: DeviceInfo) -> Machine:
        return Machine(flavour="tensorrt", tensorrt_version=VERSION, cuda_version="12", target=device.target)

    def load(self, path: Path, device: CudaDouble) -> PlanDouble:
        try:
            content = json.loads(path.read_text())
        except ValueError as e:
            raise EngineError(str(path), got=str(e), expected="a plan") from e
        profiles = [
            {name: ShapeRange(tuple(low), tuple(high)) for name, (low, high) in ranges.items()}
            for ranges in content["profiles"]
        ]
        return PlanDouble(self, device, Path(content["onnx"]), profiles)
