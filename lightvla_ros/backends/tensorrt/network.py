"""One ONNX part -> one serialised TensorRT plan.

Networks are strongly typed: precision is decided when the ONNX parts are written. TF32 stays off, because the
pruner's float32 scores decide which tokens are retained, and TF32 has the mantissa of float16.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightvla_ros.backends.length_buckets import Profile
from lightvla_ros.backends.manifest import TensorSpec
from lightvla_ros.backends.tensorrt.api import TensorRt
from lightvla_ros.core.errors import EngineError

# What the builder is told besides the target; part of a plan's fingerprint.
FLAGS = {"strongly_typed": True, "tf32": False}
# Behind a long list the reason would be lost.
_SHOWN = 8

AxisRanges = Mapping[str, Profile]


class PlanBuilder:
    """Builds plans of parts for one target.

    Args:
        api: the library.
        target: for example "sm_86", one the library builds for.
        timing_cache: file with kernel timings to start from and to leave them in; None does without.
        workspace_bytes: most device memory a kernel may use as scratch; None sets no limit.
    """

    def __init__(
        self,
        api: TensorRt,
        target: str,
        *,
        timing_cache: Path | None = None,
        workspace_bytes: int | None = None,
    ) -> None:
        self._api, self._target = api, target
        self._timing_cache, self._workspace_bytes = timing_cache, workspace_bytes

    def build(
        self, path: Path, inputs: Sequence[TensorSpec], profiles: Sequence[AxisRanges]
    ) -> tuple[Any, int]:
        """Parse an ONNX file and build it with one optimisation profile per entry of `profiles`.

        Args:
            path: the ONNX file; external weights are found beside it.
            inputs: of the graph.
            profiles: name of a dynamic axis -> its range.

        Returns:
            The serialised plan, a buffer, and the number of layers of the network.

        Raises:
            EngineError: the parser or the builder refused, with its reasons.
        """
        trt, log = self._api.module, self._api.make_logger()
        builder = trt.Builder(log)
        network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        parser = trt.OnnxParser(network, log)
        if not parser.parse_from_file(str(path)):
            raise self._parser_error(path, parser)
        num_layers = network.num_layers
        config = self._configuration(builder)
        log.lines.clear()  # the parser's advice is not why a build fails
        for ranges in profiles:
            _add_profile(builder, config, inputs, ranges)
        try:
            plan = builder.build_serialized_network(network, config)
        except MemoryError:
            log.lines.append("out of host memory")
            plan = None
        if plan is None:
            raise self._builder_error(path, log.lines)
        self._save_timings(config)
        return plan, num_layers

    def _configuration(self, builder: Any) -> Any:
        trt = self._api.module
        config = builder.create_builder_config()
        config.clear_flag(trt.BuilderFlag.TF32)
        if self._workspace_bytes is not None:
            config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, self._workspace_bytes)
        if self._api.flavour == "tensorrt-rtx":
            # TensorRT builds for the GPU it runs on and has no such setting.
            config.num_compute_capabilities = 1
            capability = getattr(trt.ComputeCapability, self._target.replace("sm_", "SM"))
            config.set_compute_capability(capability, 0)
            # Memory that TensorRT-RTX takes while it runs cannot be captured in a CUDA graph.
            config.set_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)
        if self._timing_cache is not None:
            _load_timings(config, self._timing_cache)
        return config

    def _save_timings(self, config: Any) -> None:
        if self._timing_cache is not None:
            self._timing_cache.write_bytes(config.get_timing_cache().serialize())

    def _parser_error(self, path: Path, parser: Any) -> EngineError:
        errors = [parser.get_error(index) for index in range(parser.num_errors)]
        more = [f"and {len(errors) - _SHOWN} more"] if len(errors) > _SHOWN else []
        return EngineError(
            f"ONNX parser of {self._api.flavour} {self._api.version}, {path.name}",
            got="; ".join([*(_describe(error) for error in errors[:_SHOWN]), *more]) or "refused",
            expected="operators and shapes it supports",
            fix="export the bundle again with this version of lightvla_ros; "
            "if it stays, use backend 'onnxruntime' and report this message",
        )

    def _builder_error(self, path: Path, lines: Sequence[str]) -> EngineError:
        return EngineError(
            f"builder of {self._api.flavour} {self._api.version}, {path.name} for {self._target}",
            got="; ".join(lines[-_SHOWN:]) or "refused without saying why",
            expected="a plan",
            fix="where memory is short, close other programs or build in half precision "
            "(building takes two to four times the size of the weights); otherwise report this message",
        )


def _add_profile(builder: Any, config: Any, inputs: Sequence[TensorSpec], ranges: AxisRanges) -> None:
    profile = builder.create_optimization_profile()
    for spec in inputs:
        if all(isinstance(axis, int) for axis in spec.shape):
            continue
        shapes = [
            tuple(axis if isinstance(axis, int) else getattr(ranges[axis], end) for axis in spec.shape)
            for end in ("min", "opt", "max")
        ]
        profile.set_shape(spec.name, *shapes)
    config.add_optimization_profile(profile)


def _load_timings(config: Any, path: Path) -> None:
    known = path.read_bytes() if path.is_file() else b""
    if not config.set_timing_cache(config.create_timing_cache(known), ignore_mismatch=False):
        # Of another GPU or TensorRT.
        config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)


def _describe(error: Any) -> str:
    """One error of the parser: which node, which operator, why, and where TensorRT noticed."""
    node = (
        f"node {error.node()} '{error.node_name()}' ({error.node_operator()})"
        if error.node() >= 0
        else "graph"
    )
    return f"{node}: {error.desc()} [{error.file()}:{error.line()}]"
