"""The GPUs that plans can be built for, by compute capability."""

from __future__ import annotations

import re

from lightvla_ros.backends.tensorrt.api import TensorRt
from lightvla_ros.backends.tensorrt.cuda import device_info
from lightvla_ros.core.errors import ConfigError, EngineError

CURRENT = "current"


def known_targets(api: TensorRt) -> list[str]:
    """Return the targets a library builds for on this machine."""
    if api.flavour == "tensorrt":
        return [device_info().target]
    names = api.module.ComputeCapability.__members__
    return [f"sm_{name.removeprefix('SM')}" for name in names if re.fullmatch(r"SM\d+", name)]


def resolve_target(target: str, api: TensorRt) -> str:
    """Turn "current" into this machine's target, and refuse what the library cannot build for.

    Raises:
        ConfigError: it is no compute capability.
        EngineError: the library does not build for it here, or no GPU is there to be current.
    """
    if target == CURRENT:
        return resolve_target(_current_target(api), api)
    if re.fullmatch(r"sm_\d+", target) is None:
        raise ConfigError(
            "target",
            got=repr(target),
            expected=f"a compute capability as 'sm_86', or '{CURRENT}'",
            fix="ask the GPU: nvidia-smi --query-gpu=compute_cap --format=csv gives 8.6 for sm_86",
        )
    if target in (known := known_targets(api)):
        return target
    raise EngineError(
        f"target {target}",
        got=f"{api.flavour} {api.version}, which here builds for {', '.join(known)}",
        expected="a target among these",
        fix="build on a machine with that GPU: TensorRT times kernels on it"
        if api.flavour == "tensorrt"
        else "`--backend tensorrt` on a machine with that GPU",
    )


def _current_target(api: TensorRt) -> str:
    try:
        return device_info().target
    except EngineError as e:
        if api.flavour == "tensorrt":
            raise
        raise EngineError(
            "target of this machine's GPU",
            got=f"{e.what}: {e.got}",
            expected="a GPU, or the name of a target",
            fix=f"name one with --target: {', '.join(known_targets(api))}",
        ) from e
