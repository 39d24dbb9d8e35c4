"""One part on the device: which shapes it runs with, and its captured CUDA graphs.

`Plan` and `PlanContext` are what a stage needs of TensorRT; `runtime.py` gives them.

A captured graph freezes its context: changing the context afterwards makes the graph's behaviour undefined,
and TensorRT's guide asks for one execution context per graph with shared device memory ("CUDA Graphs" in
TensorRT's performance guide; TensorRT-RTX's says the same). So every key has a context of its own, and one
more per profile runs exact shapes; the workspace is one for all, because one stream runs them in turn.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from lightvla_ros.backends.tensorrt.cuda import Device, DeviceInfo
from lightvla_ros.backends.tensorrt.plan import Machine
from lightvla_ros.core.errors import EngineError

Shape = tuple[int, ...]
Lengths = tuple[int, ...]
Copy = Callable[[], None]

DTYPE_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2, "int64": 8}

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanTensor:
    """An input or output of a plan; `dtype` is a key of `DTYPE_BYTES`, a dynamic axis of `shape` is -1."""

    dtype: str
    shape: Shape
    is_input: bool


@dataclass(frozen=True, slots=True)
class ShapeRange:
    """The shapes an input may have in one profile, ends included."""

    min: Shape
    max: Shape

    def __contains__(self, shape: Shape) -> bool:
        return len(shape) == len(self.min) and all(
            low <= size <= high for low, size, high in zip(self.min, shape, self.max, strict=True)
        )


class PlanContext(Protocol):
    """An execution context: shapes and addresses for one plan."""

    @property
    def can_capture(self) -> bool:
        """Whether TensorRT supports capturing what is bound."""
        ...

    def bind(self, shapes: Mapping[str, Shape], addresses: Mapping[str, int]) -> None:
        """Set the shapes of all inputs and the addresses of all inputs and outputs."""
        ...

    def enqueue(self) -> None:
        """Put one inference on the stream."""
        ...


class Plan(Protocol):
    """A deserialised plan."""

    @property
    def tensors(self) -> Mapping[str, PlanTensor]:
        """Inputs and outputs by name."""
        ...

    @property
    def profiles(self) -> Sequence[Mapping[str, ShapeRange]]:
        """The ranges of every input, one mapping per optimisation profile."""
        ...

    @property
    def workspace_bytes(self) -> int:
        """Device memory a context works in; several may share it when they run in turn."""
        ...

    def create_context(self, profile: int, workspace: int, *, for_capture: bool) -> PlanContext:
        """Make a context for one profile that works in the memory at address `workspace`."""
        ...

    def close(self) -> None:
        """Free contexts and plan."""
        ...


class PlanRuntime(Protocol):
    """What deserialises plans onto a device."""

    def machine(self, device: DeviceInfo) -> Machine:
        """Return what plans are compared with: this library and the GPU."""
        ...

    def load(self, path: Path, device: Device) -> Plan:
        """Deserialise a plan file; raises `EngineError` when library or GPU refuse it."""
        ...


class Stage:
    """One part: replays a captured graph where there is one, enqueues the exact shapes elsewhere.

    Args:
        name: of the part, for messages.
        plan: the part.
        device: where it runs.
        addresses: tensor name -> device memory that is large enough for every profile.
        workspace: memory shared by all contexts.
        dynamic: the inputs that have a dynamic axis, in the order in which `lengths` gives its size.
        before: copies to the device that belong to every run.
        after: copies from the device that belong to every run.
    """

    def __init__(
        self,
        name: str,
        plan: Plan,
        *,
        device: Device,
        addresses: Mapping[str, int],
        workspace: int,
        dynamic: Sequence[str] = (),
        before: Sequence[Copy] = (),
        after: Sequence[Copy] = (),
    ) -> None:
        self.name = name
        self._plan, self._device, self._workspace = plan, device, workspace
        self._addresses = {tensor: addresses[tensor] for tensor in plan.tensors}
        self._dynamic, self._before, self._after = tuple(dynamic), tuple(before), tuple(after)
        self._graphs: dict[Lengths, Any] = {}
        self._kept: list[PlanContext] = []  # a graph needs its context to stay alive
        self._exact = [self._context(profile, for_capture=False) for profile in range(len(plan.profiles))]
        self._bound: list[Lengths | None] = [None] * len(plan.profiles)
        self.num_capture_failures = 0

    @property
    def num_graphs(self) -> int:
        """How many graphs there are."""
        return len(self._graphs)

    def capture(self, lengths: Lengths) -> None:
        """Capture a graph for `lengths`; where that fails, `run` will enqueue instead.

        Reads whatever the input buffers hold, which must be valid inputs.
        """
        shapes = self._shapes(lengths)
        context = self._context(self._profile(shapes), for_capture=True)
        context.bind(shapes, self._addresses)
        self._issue(context)  # TensorRT finishes its set-up for new shapes in the first run
        self._device.synchronize()
        try:
            graph = self._device.capture(lambda: self._issue(context)) if context.can_capture else None
        except EngineError as e:
            self._count_failure(lengths, str(e))
            return
        if graph is None:
            self._count_failure(lengths, "TensorRT cannot capture this part")
            return
        self._graphs[lengths] = graph
        self._kept.append(context)

    def has_graph(self, lengths: Lengths) -> bool:
        """Whether a graph was captured for `lengths`."""
        return lengths in self._graphs

    def run(self, lengths: Lengths = ()) -> None:
        """Put the part on the stream for the given sizes of its dynamic inputs.

        Raises:
            EngineError: no profile covers the sizes, or the device failed.
        """
        graph = self._graphs.get(lengths)
        if graph is not None:
            self._device.launch(graph)
            return
        shapes = self._shapes(lengths)
        profile = self._profile(shapes)
        context = self._exact[profile]
        if self._bound[profile] != lengths:
            context.bind(shapes, self._addresses)
            self._bound[profile] = lengths
        self._issue(context)

    def close(self) -> None:
        """Let go of graphs and contexts, which belong to device and plan."""
        self._graphs.clear()
        self._kept.clear()
        self._exact.clear()

    def _issue(self, context: PlanContext) -> None:
        for copy in self._before:
            copy()
        context.enqueue()
        for copy in self._after:
            copy()

    def _context(self, profile: int, *, for_capture: bool) -> PlanContext:
        return self._plan.create_context(profile, self._workspace, for_capture=for_capture)

    def _shapes(self, lengths: Lengths) -> dict[str, Shape]:
        shapes = {name: t.shape for name, t in self._plan.tensors.items() if t.is_input}
        for name, length in zip(self._dynamic, lengths, strict=True):
            shapes[name] = tuple(length if size < 0 else size for size in shapes[name])
        return shapes

    def _profile(self, shapes: Mapping[str, Shape]) -> int:
        for index, ranges in enumerate(self._plan.profiles):
            if all(shape in ranges[name] for name, shape in shapes.items()):
                return index
        ranges_of = {
            name: [(p[name].min, p[name].max) for p in self._plan.profiles] for name in self._dynamic
        }
        raise EngineError(
            f"TensorRT, part '{self.name}'",
            got={name: shapes[name] for name in self._dynamic},
            expected=f"shapes within one of the plan's profiles {ranges_of}",
            fix="build the plans again with `lightvla build BUNDLE --force`",
        )

    def _count_failure(self, lengths: Lengths, reason: str) -> None:
        self.num_capture_failures += 1
        if self.num_capture_failures == 1:
            _logger.warning(
                "TensorRT, part '%s': no CUDA graph for %s, it runs without (%s)", self.name, lengths, reason
            )
