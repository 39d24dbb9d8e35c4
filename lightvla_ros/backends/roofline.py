"""What this machine's CPU or GPU can do at most: matrix products and bytes per second, measured.

The lower bound of a stage is the larger of its operations over the one and its bytes over the other
(the roofline model). Run as a program this module measures the CPU and prints JSON: the number of BLAS
threads is fixed when NumPy is loaded, so a process of its own must do it.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lightvla_ros.core.errors import EngineError

_BLAS_THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS")
# Large enough to reach the peak of a CPU.
_MATRIX_SIZE = 1024
# Several times the last-level cache of desktop CPUs.
_COPY_BYTES = 1 << 27
_MEASURE_S = 0.3
_TIMEOUT_S = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Roofline:
    """The two limits of a machine.

    Attributes:
        hardware: what was measured.
        bytes_per_number: 4 for float32, 2 for bfloat16: what engines compute in there.
        gflops: 1e9 operations per second of a large matrix product; on a CPU by the faster of NumPy's
            library and ONNX Runtime's (which needs onnx here; without, NumPy's alone).
        gbps: 1e9 bytes per second, read plus written, of a copy that does not fit the caches.
    """

    hardware: str
    bytes_per_number: int
    gflops: float
    gbps: float

    def __str__(self) -> str:
        return (
            f"roofline of {self.hardware}, measured: {self.gflops:.0f} GFLOP/s in "
            f"{8 * self.bytes_per_number} bits, {self.gbps:.1f} GB/s"
        )

    def best(self, other: Roofline | None) -> Roofline:
        """Return the higher of each limit of two measurements on the same machine."""
        if other is None:
            return self
        return replace(self, gflops=max(self.gflops, other.gflops), gbps=max(self.gbps, other.gbps))

    def bound_ms(self, flops: float, num_bytes: float) -> float:
        """Return the least time for this many operations and bytes, milliseconds."""
        return max(flops / self.gflops, num_bytes / self.gbps) / 1e6


def measure_roofline(num_threads: int) -> Roofline:
    """Measure both limits of the CPU in a process of its own; takes about two seconds.

    Raises:
        EngineError: the process failed, which means too little memory (about 0.4 GB) in practice.
    """
    threads = dict.fromkeys(_BLAS_THREADS, str(num_threads))
    result = subprocess.run(
        [sys.executable, "-m", __name__, str(num_threads)],
        env={**os.environ, **threads},
        capture_output=True,
        text=True,
        check=False,
        timeout=_TIMEOUT_S,
    )
    if result.returncode:
        raise EngineError(
            "roofline of this machine",
            got=(result.stderr.strip().splitlines() or ["no output"])[-1],
            expected="NumPy to multiply matrices and copy 0.1 GB",
            fix="free some memory",
        )
    return Roofline(**json.loads(result.stdout))


def _peak_gflops(num_threads: int) -> float:
    rng = np.random.default_rng(0)
    a, b = rng.random((2, _MATRIX_SIZE, _MATRIX_SIZE), dtype=np.float32)
    out = np.empty_like(a)
    seconds = _best_seconds(lambda: np.matmul(a, b, out=out))
    if importlib.util.find_spec("onnx") is not None:
        seconds = min(seconds, _best_seconds(_onnxruntime_product(a, b, num_threads)))
    return 2 * _MATRIX_SIZE**3 / seconds / 1e9


def _onnxruntime_product(
    a: NDArray[np.float32], b: NDArray[np.float32], num_threads: int
) -> Callable[[], object]:
    """Return a function that multiplies `a` with constant weights `b`, as a layer of a network does."""
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, a.shape) for name in "xy")
    product = helper.make_node("MatMul", ["x", "b"], ["y"])
    graph = helper.make_graph([product], "product", [x], [y], [numpy_helper.from_array(b, "b")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return lambda: session.run(None, {"x": a})


def _copy_gbps(num_threads: int) -> float:
    source = np.ones(_COPY_BYTES // 4, dtype=np.float32)
    target = np.empty_like(source)
    target[:] = 0  # every page exists before it is timed
    slices = list(zip(np.array_split(target, num_threads), np.array_split(source, num_threads), strict=True))
    with ThreadPoolExecutor(num_threads) as pool:  # NumPy copies without holding the interpreter's lock
        seconds = _best_seconds(lambda: list(pool.map(lambda pair: np.copyto(*pair), slices)))
    return 2 * _COPY_BYTES / seconds / 1e9


def _best_seconds(run: Callable[[], object]) -> float:
    """Time runs for a while; the fastest is the one nothing disturbed."""
    run()
    times: list[float] = []
    while sum(times) < _MEASURE_S:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


def _main(num_threads: int) -> None:
    roofline = Roofline(
        hardware=f"this machine's CPU with {num_threads} threads",
        bytes_per_number=4,
        gflops=_peak_gflops(num_threads),
        gbps=_copy_gbps(num_threads),
    )
    sys.stdout.write(json.dumps(asdict(roofline)))


if __name__ == "__main__":
    _main(int(sys.argv[1]))
