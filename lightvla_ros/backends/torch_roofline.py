"""What the GPU that torch takes can do at most, in bfloat16; see `roofline.py`."""

from __future__ import annotations

from collections.abc import Callable

import torch

from lightvla_ros.backends.roofline import Roofline
from lightvla_ros.backends.torch_device import torch_device
from lightvla_ros.core.errors import EngineError

_MATRIX_SIZE = 8192
# Many times the second-level cache of any GPU.
_COPY_BYTES = 1 << 31
_REPEAT = 20


def measure_gpu_roofline() -> Roofline:
    """Measure both limits of the GPU that torch takes, in bfloat16; takes about a second.

    Raises:
        EngineError: there is none, or its memory does not suffice (about 5 GB).
    """
    torch_device("cuda")
    try:
        a, b = torch.randn(2, _MATRIX_SIZE, _MATRIX_SIZE, device="cuda", dtype=torch.bfloat16)
        product_s = _best_gpu_seconds(lambda: torch.matmul(a, b))
        source = torch.ones(_COPY_BYTES, dtype=torch.uint8, device="cuda")
        target = torch.empty_like(source)
        copy_s = _best_gpu_seconds(lambda: target.copy_(source))
    except torch.OutOfMemoryError as e:
        raise EngineError(
            "roofline of the GPU", got=str(e), expected="5 GB of free memory", fix="free some"
        ) from e
    return Roofline(
        hardware=torch.cuda.get_device_name(),
        bytes_per_number=2,
        gflops=2 * _MATRIX_SIZE**3 / product_s / 1e9,
        gbps=2 * _COPY_BYTES / copy_s / 1e9,
    )


def _best_gpu_seconds(run: Callable[[], object]) -> float:
    times = []
    for _ in range(_REPEAT):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        run()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end))
    return float(min(times) / 1e3)
