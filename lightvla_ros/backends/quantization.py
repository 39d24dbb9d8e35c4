"""Weights of fewer bits for ONNX Runtime on CPU, made by its own quantiser from a float32 bundle.

    int8    per output channel; activations are rounded to 8 bits while running (`quantize_dynamic`)
    int4    blocks of 32 weights with a scale each; activations stay float32 (`MatMulNBits`)

Only the matrix products of vision and decoder change. What the prompt and pruner compute decides which
tokens are kept, and costs little.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lightvla_ros.backends.export_staging import check_target, staging
from lightvla_ros.backends.manifest import Manifest, describe_file
from lightvla_ros.core.errors import BundleError, ConfigError

_PARTS = ("vision", "decoder")
_INT4_BLOCK = 32


def check_scheme(scheme: str, precision: str = "float32") -> None:
    """Raise `ConfigError` where no library here quantises like that."""
    if scheme not in _QUANTIZERS:
        raise ConfigError(
            "--quant",
            got=repr(scheme),
            expected=f"one of {sorted(_QUANTIZERS)}, for ONNX Runtime on CPU; FP8 and INT8 for TensorRT need "
            "nvidia-modelopt, which lightvla_ros does not use",
            fix="for TensorRT export with --precision bfloat16 and no --quant",
        )
    if precision != "float32":
        raise ConfigError(
            "--quant",
            got=f"--precision {precision}",
            expected="float32, which the CPU computes in beside the quantised weights",
            fix="leave --precision out",
        )


def quantize_bundle(source: Path, target: Path, scheme: str, *, overwrite: bool = False) -> Manifest:
    """Write a copy of a float32 bundle whose vision and decoder weights are quantised.

    The quantiser of ONNX Runtime holds a whole part in memory, several times.

    Args:
        source: float32 bundle.
        target: where the copy goes; it appears whole or not at all.
        scheme: "int8" or "int4".
        overwrite: replace a bundle that is already there.

    Raises:
        BundleError: the source is no whole float32 bundle, the target is in use, or the disk is full.
        ConfigError: the scheme is unknown.
    """
    manifest = Manifest.read(source)
    check_scheme(scheme, manifest.precision)
    if manifest.quantization is not None:
        raise BundleError(
            str(source),
            got=f"a bundle quantised to {manifest.quantization}",
            expected="float32 weights",
            fix="quantise the bundle it was made from",
        )
    check_target(target, overwrite=overwrite)
    manifest.check_files(source)
    with staging(target, {"quantized": manifest.content_hash, "scheme": scheme}, fresh=True) as stage:
        parts = dict(manifest.parts)
        for name, part in manifest.parts.items():
            if name in _PARTS:
                _quantize(manifest.part_path(source, name), stage.bundle, _QUANTIZERS[scheme])
            else:
                for file in part.files:
                    shutil.copyfile(source / file.name, stage.bundle / file.name)
            files = sorted(stage.bundle.glob(f"{name}.onnx*"))
            parts[name] = replace(part, files=tuple(describe_file(file) for file in files))
        if manifest.tokenizer is not None:
            shutil.copyfile(source / manifest.tokenizer, stage.bundle / manifest.tokenizer)
        quantized = replace(manifest, parts=parts, quantization=scheme, runtime={})
        quantized.write(stage.bundle)
        stage.move_to(target)
    return quantized


def _quantize(path: Path, target: Path, quantizer: Callable[[Path, Path], None]) -> None:
    with TemporaryDirectory(dir=target) as scratch:
        transposed = Path(scratch) / path.name
        _transpose_weights(path, transposed)
        quantizer(transposed, target / path.name)


def _transpose_weights(path: Path, target: Path) -> None:
    """Store the weights of linear layers as right operands of products, where quantisers look for them."""
    from onnxscript import ir, optimizer

    def is_transposed_weight(node: Any) -> bool:
        value = node.inputs[0] if node.op_type == "Transpose" else None
        return value is not None and value.is_initializer()

    model = ir.load(path)
    optimizer.fold_constants_ir(model, should_fold=is_transposed_weight)
    optimizer.remove_unused_nodes(model)
    # What the quantiser's own preparation would do is done; this keeps it from asking for that.
    model.metadata_props["onnx.quant.pre_process"] = "onnxruntime.quant"
    ir.save(model, target, external_data=f"{target.name}.data" if _has_external_weights(path) else None)


def _has_external_weights(path: Path) -> bool:
    return path.with_name(f"{path.name}.data").is_file()


def _to_int8(source: Path, target: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(
        source,
        target,
        op_types_to_quantize=["MatMul"],
        per_channel=True,
        weight_type=QuantType.QInt8,
        use_external_data_format=_has_external_weights(source),
    )


def _to_int4(source: Path, target: Path) -> None:
    import onnx
    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    quantizer = MatMulNBitsQuantizer(onnx.load(source), bits=4, block_size=_INT4_BLOCK, is_symmetric=True)
    quantizer.process()
    quantizer.model.save_model_to_file(str(target), use_external_data_format=_has_external_weights(source))


_QUANTIZERS: Mapping[str, Callable[[Path, Path], None]] = {"int8": _to_int8, "int4": _to_int4}
