"""LIBERO's scenes drawn exactly and fast: `python bench/libero_rendering.py [--picture FILE]`.

Prints, for the first task of each suite, milliseconds for both cameras' pictures, the mean absolute
difference of their pixels, and seconds that a fast renderer takes to be made: with all meshes to simplify,
and later. The picture shows both kinds side by side.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from lightvla_ros.sim.libero.light_model import SIMPLIFIED
from lightvla_ros.sim.libero.rendering import CameraRenderer, ExactRenderer, FastRenderer
from lightvla_ros.sim.libero.world import CAMERAS, LiberoWorld

SUITES = ("libero_spatial", "libero_object", "libero_goal", "libero_10")
COLUMNS = ("third-person, exact", "third-person, fast", "wrist, exact", "wrist, fast")
SPACE, HEADER, MARGIN = 6, 30, 150
JPEG_QUALITY = 90


def measure(suite: str, image_size: int, repetitions: int) -> tuple[str, list[NDArray[np.uint8]]]:
    """Return a line of the table and the pictures in the order of `COLUMNS`."""
    world = LiberoWorld(suite, render="none")
    with contextlib.closing(world):
        world.reset()
        environment = world.simulation.env
        exact, exact_ms, _ = _draw(ExactRenderer, environment, image_size, repetitions)
        SIMPLIFIED.clear()
        *_, first_s = _draw(FastRenderer, environment, image_size, 1)
        fast, fast_ms, later_s = _draw(FastRenderer, environment, image_size, repetitions)
    differences = [float(cv2.absdiff(*pair).mean()) for pair in zip(exact, fast, strict=True)]
    line = (
        f"{suite:15} {exact_ms:8.1f} {fast_ms:8.1f} {differences[0]:13.2f} {differences[1]:7.2f}"
        f" {first_s:8.2f} {later_s:8.2f}"
    )
    return line, [picture for pair in zip(exact, fast, strict=True) for picture in pair]


def _draw(
    kind: Callable[[Any, int], CameraRenderer], environment: Any, image_size: int, repetitions: int
) -> tuple[list[NDArray[np.uint8]], float, float]:
    """Return both cameras' pictures, median milliseconds for them, and seconds to make the renderer."""
    started = time.perf_counter()
    renderer = kind(environment, image_size)
    made_s = time.perf_counter() - started
    durations = []
    with contextlib.closing(renderer):
        # The first pictures take longer.
        for _ in range(1 + repetitions):
            started = time.perf_counter()
            pictures = [renderer.render(camera) for camera in CAMERAS.values()]
            durations.append(time.perf_counter() - started)
    return pictures, 1e3 * float(np.median(durations[1:])), made_s


def compose(rows: dict[str, list[NDArray[np.uint8]]]) -> NDArray[np.uint8]:
    """Return the pictures of all suites in one, RGB, with their names."""
    size = next(iter(rows.values()))[0].shape[0]
    step = size + SPACE
    shape = (HEADER + step * len(rows), MARGIN + step * len(COLUMNS), 3)
    sheet = np.full(shape, 255, dtype=np.uint8)
    for column, label in enumerate(COLUMNS):
        _write(sheet, label, MARGIN + step * column, HEADER - 10)
    for row, (suite, pictures) in enumerate(rows.items()):
        top = HEADER + step * row
        _write(sheet, suite, 10, top + size // 2)
        for column, picture in enumerate(pictures):
            left = MARGIN + step * column
            sheet[top : top + size, left : left + size] = picture
    return sheet


def _write(sheet: NDArray[np.uint8], text: str, left: int, bottom: int) -> None:
    cv2.putText(sheet, text, (left, bottom), cv2.FONT_HERSHEY_SIMPLEX, 0.55, (0, 0, 0), 1, cv2.LINE_AA)


def main() -> None:
    """Measure, print and, if asked to, draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--suites", nargs="+", default=SUITES, metavar="SUITE")
    parser.add_argument("--image-size", type=int, default=256, metavar="PIXELS")
    parser.add_argument("--repetitions", type=int, default=20, help="pictures timed, the median counts")
    parser.add_argument("--picture", type=Path, help="JPEG to write, such as docs/images/libero.jpg")
    arguments = parser.parse_args()
    rows = {}
    print("suite           exact ms  fast ms  diff 3rd-p.   wrist  first s  later s", flush=True)
    with tempfile.TemporaryDirectory() as directory:
        for suite in arguments.suites:
            # Nothing is known of any suite's meshes.
            os.environ["XDG_CACHE_HOME"] = os.path.join(directory, suite)
            line, rows[suite] = measure(suite, arguments.image_size, arguments.repetitions)
            print(line, flush=True)
    if arguments.picture:
        sheet = cv2.cvtColor(compose(rows), cv2.COLOR_RGB2BGR)
        cv2.imwrite(os.fspath(arguments.picture), sheet, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])


if __name__ == "__main__":
    main()
