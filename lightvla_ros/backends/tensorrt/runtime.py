"""TensorRT's and TensorRT-RTX's side of `stage.py`: plans, contexts, enqueueing.

Works with TensorRT 10.3 or newer, 11, and TensorRT-RTX 1.4 or newer; none of it allocates device memory on
the hot path, because contexts get theirs from the caller.

TensorRT-RTX compiles kernels when it meets a shape. Graphs need them all before capture (eager
specialisation), and its own graph strategy stays off: we know when shapes repeat, and capturing copies
together with the network saves launches. See "Working with RTX CUDA Graphs" in its documentation.
"""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from lightvla_ros.backends.tensorrt.api import Flavour, TensorRt, load
from lightvla_ros.backends.tensorrt.cuda import Device, DeviceInfo, device_info
from lightvla_ros.backends.tensorrt.plan import Machine
from lightvla_ros.backends.tensorrt.stage import PlanTensor, Shape, ShapeRange
from lightvla_ros.core.errors import EngineError

_DTYPES = {"FLOAT": "float32", "HALF": "float16", "BF16": "bfloat16", "INT64": "int64"}


def machine(flavour: str) -> Machine:
    """Return what this machine offers to plans: a library and the first visible GPU.

    Args:
        flavour: of the library, one of `api.FLAVOURS`.

    Raises:
        EngineError: the library, cuda-python, a driver or a GPU is missing.
    """
    return TensorRtRuntime(cast(Flavour, flavour)).machine(device_info())


class TensorRtRuntime:
    """`PlanRuntime` over one of the two libraries.

    Raises:
        EngineError: the library is not installed.
    """

    def __init__(self, flavour: Flavour) -> None:
        self._api = load(flavour)

    def machine(self, device: DeviceInfo) -> Machine:
        """Return what plans are compared with; see `PlanRuntime.machine`."""
        return Machine(
            flavour=self._api.flavour,
            tensorrt_version=self._api.version,
            cuda_version=self._api.cuda_version(),
            target=device.target,
        )

    def load(self, path: Path, device: Device) -> TensorRtPlan:
        """Deserialise a plan file; see `PlanRuntime.load`."""
        log = self._api.make_logger()
        runtime = self._api.module.Runtime(log)
        # Mapped, not read: a 7B plan is as large as half the memory of the machine that runs it.
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            engine = runtime.deserialize_cuda_engine(content)
        if engine is None:
            raise EngineError(
                str(path),
                got="; ".join(log.lines) or "refused without a reason",
                expected=f"a plan that {self._api.flavour} {self._api.version} can load on this GPU",
            )
        return TensorRtPlan(path.name, self._api, engine, runtime=runtime, log=log, device=device)


class TensorRtPlan:
    """`Plan` over an `ICudaEngine`; keeps logger and runtime alive as long as the engine."""

    def __init__(
        self, name: str, api: TensorRt, engine: Any, *, runtime: Any, log: Any, device: Device
    ) -> None:
        self._name, self._api, self._log, self._device = name, api, log, device
        self._runtime, self._engine = runtime, engine
        self._contexts: list[TensorRtContext] = []
        self._cache: Any = None
        self.tensors = self._read_tensors()
        self.profiles = [self._read_profile(index) for index in range(engine.num_optimization_profiles)]
        self.workspace_bytes = int(engine.device_memory_size_v2)

    def create_context(self, profile: int, workspace: int, *, for_capture: bool) -> TensorRtContext:
        """Make a context that works in the caller's memory; see `Plan.create_context`."""
        context = self._engine.create_execution_context(self._configuration(for_capture=for_capture))
        if context is None:
            raise self.error("create_execution_context")
        context.set_device_memory(workspace, self.workspace_bytes)
        if not context.set_optimization_profile_async(profile, self._device.stream):
            raise self.error(f"set_optimization_profile_async({profile})")
        self._device.synchronize()
        made = TensorRtContext(self, context, self._device.stream)
        self._contexts.append(made)
        return made

    def close(self) -> None:
        """Free the contexts, then the engine, then its runtime: TensorRT's order."""
        for context in self._contexts:
            context.release()
        self._contexts.clear()
        self._cache = self._engine = self._runtime = None

    def error(self, call: str) -> EngineError:
        """Turn a refused call and what TensorRT logged into an error."""
        return EngineError(
            f"TensorRT, {self._name}: {call}",
            got="; ".join(self._log.lines[-4:]) or "refused",
            expected="success",
            fix="check that plan, driver and GPU belong together with `lightvla doctor`, "
            "or build the plans again with `lightvla build BUNDLE --force`",
        )

    def _configuration(self, *, for_capture: bool) -> Any:
        """Return what a context is made from: the caller brings the memory in every case."""
        trt = self._api.module
        strategy = trt.ExecutionContextAllocationStrategy.USER_MANAGED
        if not hasattr(trt, "DynamicShapesKernelSpecializationStrategy"):
            return strategy  # full TensorRT compiled its kernels when it built the plan
        configuration = self._engine.create_runtime_config()
        configuration.set_execution_context_allocation_strategy(strategy)
        # Lazy compiles in the background: an exact shape on the hot path must not wait for a compiler.
        strategies = trt.DynamicShapesKernelSpecializationStrategy
        configuration.dynamic_shapes_kernel_specialization_strategy = (
            strategies.EAGER if for_capture else strategies.LAZY
        )
        if self._cache is None:
            self._cache = configuration.create_runtime_cache()
        configuration.set_runtime_cache(self._cache)  # contexts of one plan share compiled kernels
        return configuration

    def _read_tensors(self) -> dict[str, PlanTensor]:
        engine, trt = self._engine, self._api.module
        tensors = {}
        for index in range(engine.num_io_tensors):
            name = engine.get_tensor_name(index)
            dtype = engine.get_tensor_dtype(name).name
            if engine.get_tensor_location(name) != trt.TensorLocation.DEVICE:
                raise EngineError(
                    f"TensorRT, {self._name}: '{name}'",
                    got="a tensor that TensorRT wants in host memory",
                    expected="only device tensors: no shape of the network may depend on a value",
                )
            tensors[name] = PlanTensor(
                dtype=_DTYPES.get(dtype, dtype),
                shape=tuple(engine.get_tensor_shape(name)),
                is_input=engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT,
            )
        return tensors

    def _read_profile(self, index: int) -> Mapping[str, ShapeRange]:
        ranges = {}
        for name, tensor in self.tensors.items():
            if tensor.is_input and -1 in tensor.shape:
                smallest, _, largest = self._engine.get_tensor_profile_shape(name, index)
                ranges[name] = ShapeRange(tuple(smallest), tuple(largest))
            elif tensor.is_input:
                ranges[name] = ShapeRange(tensor.shape, tensor.shape)
        return ranges


class TensorRtContext:
    """`PlanContext` over an `IExecutionContext`."""

    def __init__(self, plan: TensorRtPlan, context: Any, stream: int) -> None:
        self._plan, self._context, self._stream = plan, context, stream

    @property
    def can_capture(self) -> bool:
        """Whether TensorRT supports capturing what is bound; only TensorRT-RTX can say so beforehand."""
        ask = getattr(self._context, "is_stream_capturable", None)
        return True if ask is None else bool(ask(self._stream))

    def bind(self, shapes: Mapping[str, Shape], addresses: Mapping[str, int]) -> None:
        """Set shapes and addresses; see `PlanContext.bind`."""
        for name, shape in shapes.items():
            if not self._context.set_input_shape(name, shape):
                raise self._plan.error(f"set_input_shape({name}, {shape})")
        for name, address in addresses.items():
            if not self._context.set_tensor_address(name, address):
                raise self._plan.error(f"set_tensor_address({name})")
        if unknown := self._context.infer_shapes():
            raise self._plan.error(f"infer_shapes: {unknown} are not specified")

    def enqueue(self) -> None:
        """Put one inference on the stream."""
        if not self._context.execute_async_v3(self._stream):
            raise self._plan.error("execute_async_v3")

    def release(self) -> None:
        """Free the context."""
        self._context = None
