"""A policy node in words and numbers, as the panel hears of it."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightvla_ros.core.grid_region import grid_region
from lightvla_ros.core.inference_record import CameraRecord, InferenceRecord
from lightvla_ros.view.panel_model import PanelModel
from lightvla_ros.view.panel_state import Mode

NODE = "/lightvla_policy"
OK, WARN, ERROR = 0, 1, 2
VALUES = {
    "active": "True",
    "enabled": "True",
    "instruction": "pick up the red cube",
    "epoch": "3",
    "stop_reason": "",
    "engine": "mini",
    "backend": "onnxruntime",
    "inference_rate_hz": "10.00",
    "command_rate_hz": "20.00",
    "image_topic_third_person": "/camera/third_person/image",
    "image_topic_wrist": "/arm/camera/compressed",
}
STOPPED = {"stop_reason": "stale:wrist", "command_rate_hz": "0.00", "stop_message": "the newest is 3 s old"}


def hear(model: PanelModel, now_s: float, level: int = OK, node: str = NODE, **changes: str) -> None:
    model.hear_status(f"{node.lstrip('/')}: policy", level, "", {**VALUES, **changes}, now_s)


def record(stamp_ns: int, retained: tuple[int, ...] = (0, 5), grid: tuple[int, int] = (4, 4)) -> str:
    camera = {"upside_down": False, "grid": grid, "region": grid_region(48, 64), "retained": retained}
    return InferenceRecord(
        stamp_ns=stamp_ns,
        engine="mini",
        backend="onnxruntime",
        instruction="go",
        epoch=3,
        state=(0.0,),
        actions=((0.0,),),
        step_period_ns=50_000_000,
        taken=True,
        timings_ms={"vision": 3.0, "decoder": 4.5},
        cameras={
            name: CameraRecord(topic=f"/camera/{name}", stamp_ns=stamp_ns, **camera)  # type: ignore[arg-type]
            for name in ("third_person", "wrist")
        },
    ).to_json()


def picture(height: int = 48, width: int = 64) -> NDArray[np.uint8]:
    """A gradient, so that a screenshot of it has many colours."""
    rows, columns = np.mgrid[:height, :width]
    planes = (rows * 255 // height, columns * 255 // width, np.full_like(rows, 90))
    return np.stack(planes, axis=-1).astype(np.uint8)


def mask(retained: tuple[int, ...] = (0, 5), grid: tuple[int, int] = (4, 4)) -> NDArray[np.uint8]:
    result = np.zeros(grid, dtype=np.uint8)
    result.flat[list(retained)] = 255
    return result


def show(
    model: PanelModel,
    image: NDArray[Any],
    mode: Mode,
    now_s: float,
    *,
    camera: str = "wrist",
    stamp_ns: int = 1,
    node: str = NODE,
) -> None:
    model.hear_picture(node, camera, mode, image, stamp_ns=stamp_ns, now_s=now_s)


def without(text: str, key: str) -> str:
    """The record without one of its keys."""
    values = json.loads(text)
    del values[key]
    return json.dumps(values)
