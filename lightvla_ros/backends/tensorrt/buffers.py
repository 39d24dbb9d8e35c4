"""The memory of the TensorRT engine: every tensor once, at the size of its largest profile."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightvla_ros.backends.manifest import Manifest
from lightvla_ros.backends.tensorrt.cuda import Device
from lightvla_ros.backends.tensorrt.stage import DTYPE_BYTES, Plan, PlanTensor
from lightvla_ros.core.errors import BundleError

# The decoder reads a prefix of the pruner's order, and its count, where the pruner wrote them.
_SAME_MEMORY = {"retained_indices": "order", "retained_count": "count"}
# These never leave the device and have the precision of the plan, which may differ from the bundle's.
_DEVICE_ONLY = ("patches", "prompt_tokens", "prompt_keys")
_PRECISION_DEPENDENT = ("patches", "prompt_tokens")


@dataclass(frozen=True, slots=True, kw_only=True)
class Buffers:
    """Memory by tensor name.

    Attributes:
        addresses: device memory of every input and output of every part.
        sizes: bytes of it.
        host: page-locked arrays for what crosses to the host or back.
        workspace: device memory that all contexts work in, one after the other.
    """

    addresses: Mapping[str, int]
    sizes: Mapping[str, int]
    host: Mapping[str, NDArray[Any]]
    workspace: int


def check_tensors(part: str, plan: Plan, manifest: Manifest) -> None:
    """Compare a plan's inputs and outputs with the part it was built from.

    Raises:
        BundleError: a name is missing or unknown, or a type at the host's boundary is another.
    """
    specs = {spec.name: spec for spec in (*manifest.parts[part].inputs, *manifest.parts[part].outputs)}
    wrong = sorted(specs.keys() ^ plan.tensors.keys()) + [
        f"{name} {plan.tensors[name].dtype}"
        for name, spec in specs.items()
        if name in plan.tensors
        and plan.tensors[name].dtype != spec.dtype
        and name not in _PRECISION_DEPENDENT
    ]
    if wrong or any(tensor.dtype not in DTYPE_BYTES for tensor in plan.tensors.values()):
        raise BundleError(
            f"TensorRT plan of part '{part}'",
            got=f"inputs and outputs {dict(plan.tensors)}",
            expected=f"those of the manifest ({wrong or sorted(specs)})",
        )


def allocate(device: Device, plans: Mapping[str, Plan], manifest: Manifest) -> Buffers:
    """Allocate everything the engine will ever need.

    Raises:
        EngineError: the memory does not suffice.
    """
    sizes = _sizes(plans.values(), longest_prompt=manifest.prompt_buckets[-1])
    addresses = {name: device.allocate(size) for name, size in sizes.items()}
    workspace = device.allocate(max(plan.workspace_bytes for plan in plans.values()))
    host = {
        name: device.allocate_host(shape, np.dtype(dtype))
        for name, (shape, dtype) in _host_tensors(manifest).items()
    }
    for alias, name in _SAME_MEMORY.items():
        addresses[alias] = addresses[name]
    return Buffers(addresses=addresses, sizes=sizes, host=host, workspace=workspace)


def _sizes(plans: Iterable[Plan], longest_prompt: int) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for plan in plans:
        for name, tensor in plan.tensors.items():
            shape = _largest_shape(plan, name, tensor, longest_prompt)
            owner = _SAME_MEMORY.get(name, name)
            num_bytes = math.prod(shape) * DTYPE_BYTES[tensor.dtype]
            sizes[owner] = max(sizes.get(owner, 0), num_bytes)
    return sizes


def _largest_shape(plan: Plan, name: str, tensor: PlanTensor, longest_prompt: int) -> tuple[int, ...]:
    if not tensor.is_input:
        # Of dynamic length are only the prompt's tokens and keys; learned queries read no keys.
        return tuple(longest_prompt if size < 0 else size for size in tensor.shape)
    return tuple(max(sizes) for sizes in zip(*(profile[name].max for profile in plan.profiles), strict=True))


def _host_tensors(manifest: Manifest) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shapes and types of what the host reads or writes, the longest prompt for its ids."""
    specs = {
        spec.name: (spec.shape, spec.dtype)
        for part in manifest.parts.values()
        for spec in (*part.inputs, *part.outputs)
        if spec.name not in (*_DEVICE_ONLY, *_SAME_MEMORY)
    }
    longest = manifest.prompt_buckets[-1] + 1
    return {
        name: (tuple(size if isinstance(size, int) else longest for size in shape), dtype)
        for name, (shape, dtype) in specs.items()
    }
