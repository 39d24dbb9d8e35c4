"""Widen a half-precision bundle to float32, so that a CPU without such kernels runs its graphs.

The weights keep their rounded values; what is computed between them is float32. So this checks the graphs'
structure and the rounding of the weights, not the arithmetic of a GPU.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from lightvla_ros.backends.manifest import PARTS, Manifest, Part, TensorSpec, describe_file
from lightvla_ros.core.errors import ConfigError, EngineError

# Protobuf holds no more in one file.
_MAX_INLINE_BYTES = 1 << 30


def widen_bundle(directory: Path, manifest: Manifest, target: Path) -> Path:
    """Write a float32 bundle with the rounded weights of a half-precision one; return `target`.

    Raises:
        BundleError: a file differs from the manifest.
        ConfigError: the bundle is float32 already, or quantised.
        EngineError: onnx is missing.
    """
    if manifest.precision == "float32" or manifest.quantization is not None:
        raise ConfigError(
            "--widen",
            got=f"a bundle in {manifest.quantization or manifest.precision}",
            expected="one in bfloat16 or float16",
            fix="leave out --widen",
        )
    manifest.check_files(directory)
    target.mkdir(parents=True)
    parts = {
        name: _widen_part(manifest.parts[name], manifest.part_path(directory, name), target) for name in PARTS
    }
    if manifest.tokenizer is not None:
        shutil.copy(directory / manifest.tokenizer, target)
    replace(manifest, precision="float32", parts=parts).write(target)
    return target


def _widen_part(part: Part, source: Path, target: Path) -> Part:
    try:
        import onnx
    except ImportError as e:
        raise EngineError("--widen", got=str(e), expected="onnx", fix="pip install onnx") from e
    model = onnx.load(source)
    _widen_graph(model.graph)
    path = target / source.name
    big = sum(len(tensor.raw_data) for tensor in model.graph.initializer) > _MAX_INLINE_BYTES
    onnx.save(model, path, save_as_external_data=big, location=f"{path.name}.data")
    files = [path, *sorted(target.glob(f"{path.name}.*"))]
    return Part(
        files=tuple(map(describe_file, files)), inputs=_specs(part.inputs), outputs=_specs(part.outputs)
    )


def _widen_graph(graph: Any) -> None:
    from onnx import AttributeProto, TensorProto

    half = (TensorProto.FLOAT16, TensorProto.BFLOAT16)
    for tensor in graph.initializer:
        _widen_tensor(tensor, half)
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.type.tensor_type.elem_type in half:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.TENSOR:
                _widen_tensor(attribute.t, half)
            elif attribute.type == AttributeProto.GRAPH:
                _widen_graph(attribute.g)
            elif node.op_type == "Cast" and attribute.name == "to" and attribute.i in half:
                attribute.i = TensorProto.FLOAT


def _widen_tensor(tensor: Any, half: tuple[int, ...]) -> None:
    from onnx import numpy_helper

    if tensor.data_type in half:
        wide = numpy_helper.to_array(tensor).astype("float32")
        tensor.CopyFrom(numpy_helper.from_array(wide, tensor.name))


def _specs(specs: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
    return tuple(replace(spec, dtype="float32") if "float" in spec.dtype else spec for spec in specs)
