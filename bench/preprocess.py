"""Time preprocessing of two cameras with one BLAS thread: `python bench/preprocess.py [--json]`.

CPU time, of all threads, stands beside wall time because it hardly depends on what else the machine does.
The JPEG round trips of the two cameras take a core each where there are two.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import asdict, dataclass

# As in the node's inference process; BLAS reads this when NumPy is loaded.
os.environ["OMP_NUM_THREADS"] = "1"

import cv2
import numpy as np
from numpy.typing import NDArray

from lightvla_ros.core.preprocess import JPEG_PARAMETERS, ImagePreprocessor

SIZES = ((480, 640), (256, 256))
WARM_UP = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Times of one call for two cameras, milliseconds; `jpeg_kb` is the size of one image's JPEG."""

    height: int
    width: int
    jpeg: bool
    jpeg_kb: float
    p50_ms: float
    p95_ms: float
    cpu_p50_ms: float


def make_image(height: int, width: int, seed: int) -> NDArray[np.uint8]:
    """Make smooth colours with sensor-like noise, which at 640x480 is about 100 kB as JPEG."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    waves = np.stack([np.sin(x / 37 + c) * np.cos(y / 23 - c) for c in range(3)], axis=-1)
    noise = rng.normal(0, 3.5, (height, width, 1))
    return np.clip(128 + 90 * waves + noise, 0, 255).astype(np.uint8)


def measure(height: int, width: int, *, jpeg: bool, repeats: int) -> Row:
    """Time `ImagePreprocessor` on two images of one size."""
    images = [make_image(height, width, seed) for seed in range(2)]
    preprocessor = ImagePreprocessor(jpeg=jpeg)
    wall_s, cpu_s = [], []
    for _ in range(WARM_UP + repeats):
        wall_start, cpu_start = time.perf_counter(), time.process_time()
        preprocessor(images)
        cpu_s.append(time.process_time() - cpu_start)
        wall_s.append(time.perf_counter() - wall_start)
    p50, p95 = np.percentile(wall_s[WARM_UP:], (50, 95)) * 1e3
    return Row(
        height=height,
        width=width,
        jpeg=jpeg,
        jpeg_kb=round(cv2.imencode(".jpg", images[0], JPEG_PARAMETERS)[1].size / 1e3, 1),
        p50_ms=round(float(p50), 3),
        p95_ms=round(float(p95), 3),
        cpu_p50_ms=round(float(np.median(cpu_s[WARM_UP:])) * 1e3, 3),
    )


def main() -> None:
    """Print the table, or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=200, help="timed calls per row (default 200)")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    cases = [(size, jpeg) for size in SIZES for jpeg in (False, True)]
    rows = [measure(*size, jpeg=jpeg, repeats=arguments.repeats) for size, jpeg in cases]
    if arguments.json:
        print(json.dumps({"rows": [asdict(row) for row in rows]}))
        return
    print("two cameras             JPEG   p50 ms   p95 ms   CPU p50 ms")
    for row in rows:
        jpeg = f"{row.jpeg_kb:.0f} kB" if row.jpeg else "off"
        size = f"{row.width}x{row.height}"
        print(f"{size:<22} {jpeg:>7} {row.p50_ms:>8.2f} {row.p95_ms:>8.2f} {row.cpu_p50_ms:>12.2f}")


if __name__ == "__main__":
    main()
