"""One part of a bundle: traced without weights, then written with weights read one by one."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightvla_ros.backends.bundle_model import EMBEDDING, PREFIX
from lightvla_ros.backends.export_graphs import Graph
from lightvla_ros.backends.manifest import Part, TensorSpec, describe_file
from lightvla_ros.core.errors import LightVlaError, SpecError

# TensorRT-RTX builds this opset in float32 as it is; from 23 on attention becomes one operator.
_OPSET = 20


def trace(graph: Graph) -> Any:
    """Trace a part into an `onnxscript.ir.Model`; the network's weights have a name and no values."""
    from onnxscript import optimizer

    # Its warnings are about libraries nobody uses here.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program: Any = torch.onnx.export(
            graph.module.eval(),
            tuple(graph.inputs.values()),
            input_names=list(graph.inputs),
            output_names=list(graph.outputs),
            dynamic_shapes={name: graph.dynamic.get(name) for name in graph.inputs},
            opset_version=_OPSET,
            dynamo=True,
            optimize=False,
            verbose=False,
        )
    model = program.model
    for value in _weight_values(model):
        value.const_value = None  # what the exporter put there cannot be read
    # The exporter's own optimiser merges and transposes weights under new names; this folds the rest.
    optimizer.inline(model)
    optimizer.fold_constants_ir(model, onnx_shape_inference=True, should_fold=_reads_no_weight)
    optimizer.remove_unused_nodes(model)
    _remove_unused_inputs(model.graph)
    _forget_source(model.graph)
    return model


def write_part(
    path: Path,
    graph: Graph,
    weights: Mapping[str, Tensor],
    *,
    inline_bytes: int,
    progress: Callable[[int, int], None],
) -> Part:
    """Trace a part and write it, reading each weight when its turn comes.

    Args:
        path: the ONNX file; weights go into a file beside it where there are many.
        graph: the part.
        weights: state-dict name -> tensor, in any dtype on any device.
        inline_bytes: a part with at most so many bytes of weights is one file.
        progress: called with the bytes written so far and the bytes there are.

    Raises:
        SpecError: a weight is too large a number for the part's dtype.
    """
    from onnxscript import ir

    model = trace(graph)
    values = _weight_values(model)
    total = sum(_num_bytes(value) for value in values)
    done = 0

    def read(value: Any) -> Any:
        nonlocal done
        tensor = _cast(value.name, _select(weights, value.name, graph), _torch_dtype(value))
        done += _num_bytes(value)
        progress(done, total)
        return ir.tensor(tensor, name=value.name)

    progress(0, total)
    for value in values:
        value.const_value = ir.LazyTensor(
            partial(read, value), dtype=value.dtype, shape=value.shape, name=value.name
        )
    with _unwrapped_errors():
        ir.save(model, path, external_data=f"{path.name}.data" if total > inline_bytes else None)
    files = [path, *sorted(path.parent.glob(f"{path.name}.*"))]
    return Part(
        files=tuple(describe_file(file) for file in files),
        inputs=_specs(model.graph.inputs),
        outputs=_specs(model.graph.outputs),
    )


@contextmanager
def _unwrapped_errors() -> Iterator[None]:
    """Raise what went wrong while reading a weight, which `ir.save` wraps in errors of its own."""
    try:
        yield
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, (LightVlaError, OSError)):
            cause = cause.__cause__
        if cause is None:
            raise
        raise cause from None


def _weight_values(model: Any) -> list[Any]:
    return [value for name, value in model.graph.initializers.items() if name.startswith(PREFIX)]


def _select(weights: Mapping[str, Tensor], name: str, graph: Graph) -> Tensor:
    weight = weights[name.removeprefix(PREFIX)]
    if name != PREFIX + EMBEDDING or graph.embedding_rows is None:
        return weight
    return weight[list(graph.embedding_rows)]


def _cast(name: str, weight: Tensor, dtype: torch.dtype) -> Tensor:
    cast = weight.detach().to("cpu", dtype).contiguous()
    if dtype == torch.float16 and weight.dtype != dtype and not cast.isfinite().all():
        raise SpecError(
            f"weight '{name.removeprefix(PREFIX)}'",
            got=f"{float(weight.abs().max()):.3g}",
            expected=f"at most {torch.finfo(dtype).max:g}, the largest number of float16",
            fix="export with --precision bfloat16",
        )
    return cast


def _torch_dtype(value: Any) -> torch.dtype:
    dtype: torch.dtype = getattr(torch, str(value.dtype.numpy()))
    return dtype


def _num_bytes(value: Any) -> int:
    return math.prod(value.shape) * int(value.dtype.itemsize)


def _forget_source(graph: Any) -> None:
    """Drop the exporter's notes of where each node came from: stack traces with this machine's paths."""
    graph.metadata_props.clear()
    for node in graph.all_nodes():
        node.metadata_props.clear()
        for value in node.outputs:
            value.metadata_props.clear()
    for value in (*graph.inputs, *graph.initializers.values()):
        value.metadata_props.clear()


def _remove_unused_inputs(graph: Any) -> None:
    """Drop inputs that nothing reads, as learned queries read no prompt: some runtimes do, others do not."""
    for value in [value for value in graph.inputs if not value.uses()]:
        graph.inputs.remove(value)


def _reads_no_weight(node: Any) -> bool | None:
    # None leaves the decision to the optimiser.
    return False if any(value is not None and value.is_initializer() for value in node.inputs) else None


def _specs(values: Sequence[Any]) -> tuple[TensorSpec, ...]:
    return tuple(
        TensorSpec(
            name=value.name,
            dtype=str(value.dtype.numpy()),
            shape=tuple(axis if isinstance(axis, int) else str(axis) for axis in value.shape),
        )
        for value in values
    )
