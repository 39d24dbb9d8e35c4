"""All that one inference got and gave, as a line of JSON: what recordings are replayed and drawn from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightvla_ros.core.errors import LightVlaError
from lightvla_ros.core.grid_region import GridRegion


@dataclass(frozen=True, slots=True, kw_only=True)
class CameraRecord:
    """What became of one camera's image, as the camera published it: an upside-down one is not turned.

    Attributes:
        topic: full name of the image's topic.
        stamp_ns: stamp of the image.
        upside_down: whether the policy saw it turned by 180 degrees.
        grid: (rows, columns) of the patch grid.
        region: what the grid covers of the image.
        retained: the retained patches, ascending, counted row by row from the upper left.
    """

    topic: str
    stamp_ns: int
    upside_down: bool
    grid: tuple[int, int]
    region: GridRegion
    retained: tuple[int, ...]

    @property
    def keep_mask(self) -> NDArray[np.bool_]:
        """Bool [rows, columns], True where the token was retained."""
        mask = np.zeros(self.grid, dtype=np.bool_)
        mask.flat[list(self.retained)] = True
        return mask


@dataclass(frozen=True, slots=True, kw_only=True)
class InferenceRecord:
    """One inference.

    Attributes:
        stamp_ns: of the observation, which is that of its oldest image.
        engine: name of the bundle or checkpoint.
        backend: what ran it.
        instruction: the user's text.
        epoch: count of instructions.
        state: the robot's state, as the policy was given it; length P.
        actions: [chunk_size][action_dim], robot units, before blending and limits.
        step_period_ns: time between two steps.
        taken: whether the chunk was scheduled; one of an older epoch or all in the past is not.
        timings_ms: stage -> milliseconds.
        cameras: by name, in the policy's order.
    """

    stamp_ns: int
    engine: str
    backend: str
    instruction: str
    epoch: int
    state: tuple[float, ...]
    actions: tuple[tuple[float, ...], ...]
    step_period_ns: int
    taken: bool
    timings_ms: Mapping[str, float]
    cameras: Mapping[str, CameraRecord]

    @property
    def num_retained(self) -> int:
        """Visual tokens retained over all cameras."""
        return sum(len(camera.retained) for camera in self.cameras.values())

    @property
    def num_visual_tokens(self) -> int:
        """Visual tokens over all cameras before pruning."""
        return sum(camera.grid[0] * camera.grid[1] for camera in self.cameras.values())

    def to_json(self) -> str:
        """Write one line; every number comes back bit for bit."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> InferenceRecord:
        """Read what `to_json` wrote; keys of later versions are ignored.

        Raises:
            LightVlaError: the text is something else.
        """
        try:
            return _record(json.loads(text))
        except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
            raise LightVlaError(
                "message on policy/inference",
                got=f"{text[:60]!r} ({type(error).__name__}: {error})",
                expected="the JSON of an inference record",
                fix="check that nothing else publishes on this topic, and that both sides are of one version",
            ) from error


def _record(values: Mapping[str, Any]) -> InferenceRecord:
    return InferenceRecord(
        stamp_ns=int(values["stamp_ns"]),
        engine=str(values["engine"]),
        backend=str(values["backend"]),
        instruction=str(values["instruction"]),
        epoch=int(values["epoch"]),
        state=tuple(float(value) for value in values["state"]),
        actions=tuple(tuple(float(value) for value in step) for step in values["actions"]),
        step_period_ns=int(values["step_period_ns"]),
        taken=bool(values["taken"]),
        timings_ms={str(stage): float(value) for stage, value in values["timings_ms"].items()},
        cameras={str(name): _camera(camera) for name, camera in values["cameras"].items()},
    )


def _camera(values: Mapping[str, Any]) -> CameraRecord:
    rows, columns = (int(value) for value in values["grid"])
    retained = tuple(int(value) for value in values["retained"])
    if min(rows, columns) < 1 or any(not 0 <= patch < rows * columns for patch in retained):
        raise ValueError(f"retained patches {retained} of a {rows}x{columns} grid")
    left, top, right, bottom = (float(value) for value in values["region"])
    if not (left < right and top < bottom):
        raise ValueError(f"region {values['region']}")
    return CameraRecord(
        topic=str(values["topic"]),
        stamp_ns=int(values["stamp_ns"]),
        upside_down=bool(values["upside_down"]),
        grid=(rows, columns),
        region=GridRegion(left, top, right, bottom),
        retained=retained,
    )
