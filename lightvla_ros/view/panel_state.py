"""What the panel shows at one moment; neither ROS nor Qt here."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]


class Mode(str, Enum):
    """What is shown of each camera."""

    IMAGE = "image"
    MASK = "mask"
    OVERLAY = "overlay"


class Severity(Enum):
    """How much something asks of a person."""

    GOOD = "good"
    NEUTRAL = "neutral"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class Banner:
    """What the node does, and why it does not.

    Attributes:
        severity: gives the colour.
        headline: state, reason code and since when.
        detail: the reason in words, with what to do about it; may be long.
    """

    severity: Severity
    headline: str
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CameraView:
    """One camera in the present mode.

    Attributes:
        name: the policy's name of the camera.
        topic: full name of the topic that is shown, "" while it is not known.
        image: uint8 [H, W, 3] RGB, or [rows, columns] of a mask, 255 where retained; None before the first.
        caption: size, retained patches.
        complaint: what is wrong, "" when the picture is what it should be.
        is_old: the picture is not of now.
    """

    name: str
    topic: str = ""
    image: NDArray[np.uint8] | None = None
    caption: str = ""
    complaint: str = ""
    is_old: bool = False


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Chart:
    """The last minute of quantities that add up.

    Attributes:
        title: what it shows, with its unit.
        decimals: of the values.
        total: the newest sum, in words.
        times_s: float64 [M], seconds before now: negative, ascending.
        parts: name -> float64 [M], drawn one upon the other.
    """

    title: str
    decimals: int
    total: str
    times_s: Values
    parts: dict[str, Values]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PanelState:
    """Everything but the charts.

    Attributes:
        node: full name of the policy node that is shown; "" while none is known.
        nodes: full names to choose from.
        banner: state of the node.
        mode: what is shown of the cameras.
        instruction: what the node acts on.
        epoch: count of instructions, as told.
        engine: name and backend.
        is_enabled: whether commands are enabled; None while that is not known.
        cameras: in the policy's order.
        problems: what is wrong with other topics than the pictures'.
        answer: what came of the last thing that was asked of the node.
    """

    node: str
    nodes: tuple[str, ...]
    banner: Banner
    mode: Mode
    instruction: str = ""
    epoch: str = ""
    engine: str = ""
    is_enabled: bool | None = None
    cameras: tuple[CameraView, ...] = ()
    problems: tuple[str, ...] = ()
    answer: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the panel needs to hear.

    Attributes:
        node: full name of the policy node; "" while none is known.
        mode: what is shown of the cameras.
        records: topic of its inference records.
        pictures: camera -> topic of what is shown of it.
    """

    node: str
    mode: Mode
    records: str = ""
    pictures: dict[str, str] = field(default_factory=dict)
