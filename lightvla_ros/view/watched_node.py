"""What the panel remembers of one policy node: states, pictures, the last minute of inferences."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lightvla_ros.core.inference_record import CameraRecord, InferenceRecord
from lightvla_ros.view.panel_state import CameraView, Chart, Mode, Values
from lightvla_ros.view.policy_status import Snapshot
from lightvla_ros.view.status_trace import Trace

CHART_S = 60.0
# A policy at 50 Hz.
_MOST_INFERENCES = 3000
# A camera that is slower is no camera to act on; a slow policy is given three of its own periods.
OLD_AFTER_S = 1.5
_OLD_AFTER_PERIODS = 3.0
_PARAMETERS = {Mode.MASK: "masks.tokens", Mode.OVERLAY: "masks.overlay"}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Picture:
    """What came last on a picture's topic: a picture, or what is wrong with it."""

    heard_s: float
    stamp_ns: int = 0
    image: NDArray[np.uint8] | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Heard:
    time_s: float
    record: InferenceRecord


class WatchedNode:
    """One policy node. Not thread safe: the owner locks.

    Args:
        snapshot: its first status.
        now_s: when that came, seconds of any clock that only goes forward.

    Attributes:
        trace: its states.
        pictures: (camera, mode) -> what came last.
    """

    def __init__(self, snapshot: Snapshot, now_s: float) -> None:
        self.trace = Trace(snapshot, now_s)
        self.pictures: dict[tuple[str, Mode], Picture] = {}
        self._image_topics = snapshot.image_topics
        self._heard: deque[_Heard] = deque(maxlen=_MOST_INFERENCES)

    def add(self, snapshot: Snapshot, now_s: float) -> None:
        """Take in a status."""
        self.trace.add(snapshot, now_s)
        # A node that is not configured names no cameras; those it had are shown on.
        self._image_topics = snapshot.image_topics or self._image_topics

    def add_record(self, record: InferenceRecord, now_s: float) -> None:
        """Take in an inference; one that comes twice counts once."""
        if self._heard and self._heard[-1].record.stamp_ns == record.stamp_ns:
            return
        self._heard.append(_Heard(time_s=now_s, record=record))
        while self._heard[0].time_s < now_s - CHART_S:
            self._heard.popleft()

    def topics(self, mode: Mode) -> dict[str, str]:
        """Camera -> full name of the topic with what a mode shows of it."""
        if mode is Mode.IMAGE:
            return dict(self._image_topics)
        folder = "retained_tokens" if mode is Mode.MASK else "overlay"
        return {camera: f"{self.namespace}/policy/{folder}/{camera}" for camera in self._image_topics}

    @property
    def namespace(self) -> str:
        """The node's namespace, "" for the root."""
        return self.trace.snapshot.node.rpartition("/")[0]

    def camera_view(self, camera: str, mode: Mode, topic: str, problem: str, now_s: float) -> CameraView:
        """Tell what is to be shown of a camera.

        Args:
            camera: its name.
            mode: what is shown of it.
            topic: where that comes from.
            problem: what the graph has wrong with the topic, or "".
            now_s: time of the other calls' clock.
        """
        picture = self.pictures.get((camera, mode))
        seen = self._record_of(camera, picture)
        is_old = picture is None or now_s - picture.heard_s > self._old_after_s(mode)
        if problem:
            complaint = problem
        elif picture is None or is_old:
            complaint = self._absence(mode, topic, picture, now_s)
        else:
            complaint = picture.problem or _disagreement(picture, mode, seen)
        return CameraView(
            name=camera,
            topic=topic,
            image=None if picture is None else picture.image,
            caption=_caption(picture, mode, seen),
            complaint=complaint,
            is_old=is_old,
        )

    def kept_chart(self, now_s: float) -> Chart:
        """Tell the retained tokens of each camera."""
        newest = self._heard[-1].record if self._heard else None
        total = f"{newest.num_retained} of {newest.num_visual_tokens}" if newest else ""
        return self._chart("tokens retained", 0, total, _retained, now_s)

    def latency_chart(self, now_s: float) -> Chart:
        """Tell the time each stage took, ms."""
        total = f"{sum(self._heard[-1].record.timings_ms.values()):.1f} ms" if self._heard else ""
        return self._chart("inference, ms", 1, total, lambda record: record.timings_ms, now_s)

    def _chart(
        self,
        title: str,
        decimals: int,
        total: str,
        parts_of: Callable[[InferenceRecord], Mapping[str, float]],
        now_s: float,
    ) -> Chart:
        recent = [item for item in self._heard if item.time_s >= now_s - CHART_S]
        parts = [parts_of(item.record) for item in recent]
        names = dict.fromkeys(name for part in parts for name in part)
        return Chart(
            title=title,
            decimals=decimals,
            total=total if recent else "",
            times_s=_values(item.time_s - now_s for item in recent),
            parts={name: _values(part.get(name, 0.0) for part in parts) for name in names},
        )

    def _old_after_s(self, mode: Mode) -> float:
        rate_hz = self.trace.snapshot.rates_hz.get("inference", 0.0)
        if mode is Mode.IMAGE or rate_hz <= 0:
            return OLD_AFTER_S
        return max(OLD_AFTER_S, _OLD_AFTER_PERIODS / rate_hz)

    def _record_of(self, camera: str, picture: Picture | None) -> CameraRecord | None:
        """Find what the inference from this very picture retained of it."""
        for item in reversed(self._heard):
            record = item.record.cameras.get(camera)
            if picture is not None and record is not None and record.stamp_ns == picture.stamp_ns:
                return record
        return None

    def _absence(self, mode: Mode, topic: str, picture: Picture | None, now_s: float) -> str:
        """Say for how long a picture is missing, and why."""
        since = "yet" if picture is None else f"for {now_s - picture.heard_s:.0f} s"
        missing = f"no {mode.value} {since}"
        if mode is Mode.IMAGE:
            return f"{missing} on {topic}"
        if self.trace.silence_s(now_s) is not None:
            return f"{missing}: the policy node is silent"
        if self._heard and now_s - self._heard[-1].time_s <= self._old_after_s(mode):
            return f"{missing}, though inferences go on. Fix: set the node's {_PARAMETERS[mode]} to true"
        reason = self.trace.snapshot.reason
        return f"{missing}: the policy is not inferring" + (f" ({reason})" if reason else "")


def _disagreement(picture: Picture, mode: Mode, record: CameraRecord | None) -> str:
    """Say how a picture contradicts the record of its inference; "" when it does not."""
    image = picture.image
    if image is None or record is None:
        return ""
    (rows, columns), (height, width) = record.grid, image.shape[:2]
    if mode is not Mode.MASK and (height < rows or width < columns):
        return f"the {mode.value} has {_size(image)} pixels, its inference's grid {columns}x{rows} patches"
    if mode is Mode.MASK and (height, width) != (rows, columns):
        return f"the mask has {_size(image)} patches, its inference {columns}x{rows}"
    if mode is Mode.MASK and np.count_nonzero(image) != len(record.retained):
        return f"the mask retains {np.count_nonzero(image)} patches, its inference {len(record.retained)}"
    return ""


def _caption(picture: Picture | None, mode: Mode, record: CameraRecord | None) -> str:
    if picture is None or picture.image is None:
        return ""
    if mode is Mode.MASK:
        return f"{np.count_nonzero(picture.image)} of {picture.image.size} retained"
    size = f"{_size(picture.image)} px"
    if record is None:
        return size
    return f"{len(record.retained)} of {record.grid[0] * record.grid[1]} retained, {size}"


def _size(image: NDArray[np.uint8]) -> str:
    """Tell a size as people do, width first."""
    return f"{image.shape[1]}x{image.shape[0]}"


def _retained(record: InferenceRecord) -> dict[str, float]:
    return {camera: len(seen.retained) for camera, seen in record.cameras.items()}


def _values(numbers: Iterable[float]) -> Values:
    return np.array(list(numbers), dtype=np.float64)
