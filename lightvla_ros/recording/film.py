"""A recording as a film or as a strip of moments: camera images, and below what the policy retained."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from lightvla_ros.core.errors import LightVlaError
from lightvla_ros.core.inference_record import InferenceRecord
from lightvla_ros.recording.bag import BagReader
from lightvla_ros.recording.inferences import RecordedInference, RecordedInferences, decode_image
from lightvla_ros.view.layout import draw_record, draw_strip
from lightvla_ros.view.video import write_film, write_picture

Frame = NDArray[np.uint8]

# A pause of the policy, such as between two instructions, is shown no longer than this.
_LONGEST_PAUSE_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A part of a recording, in seconds from its first inference."""

    begin_s: float = 0.0
    end_s: float = math.inf

    def choose(self, records: Sequence[InferenceRecord]) -> list[InferenceRecord]:
        """Return the inferences within."""
        first_ns = records[0].stamp_ns
        return [
            record for record in records if self.begin_s <= (record.stamp_ns - first_ns) / 1e9 <= self.end_s
        ]


def draw_film(bag: BagReader, path: Path, *, span: Span, fps: float, width: int | None = None) -> int:
    """Draw a film at the speed at which things happened.

    Args:
        bag: the recording.
        path: where to, ending in .mp4 or .gif.
        span: what to show.
        fps: frames per second.
        width: of the film, pixels; None for as wide as it comes.

    Returns:
        How many frames it has.

    Raises:
        LightVlaError: nothing can be shown of this span, or the file cannot be written.
    """
    inferences = RecordedInferences(bag)
    chosen = span.choose(inferences.records)
    paced = _paced(inferences.with_images(chosen), _times_s(chosen), fps)
    drawn = (_scaled(draw_record(entry.record, _images(bag, entry)), width) for entry in paced)
    num_frames = write_film(path, drawn, fps=fps)
    if not num_frames:
        raise _nothing(bag, inferences, span)
    return num_frames


def draw_moments(bag: BagReader, path: Path, *, span: Span, moments: int) -> int:
    """Draw moments of one instruction, equally far from each other, side by side.

    Of a span with several instructions it is the one on which the policy acted most.

    Args:
        bag: the recording.
        path: where to, e.g. a .png.
        span: what to choose from.
        moments: how many.

    Returns:
        How many moments are shown, which may be fewer.

    Raises:
        LightVlaError: nothing can be shown of this span, or the file cannot be written.
    """
    inferences = RecordedInferences(bag)
    by_epoch = groupby(span.choose(inferences.records), key=lambda record: record.epoch)
    longest = max((list(run) for _, run in by_epoch), key=len, default=[])
    # Only those that can be shown: a recording that began under way lacks the images of its first inference.
    whole = [entry.record for entry in inferences.with_images(longest)]
    picks = np.linspace(0, len(whole) - 1, moments).round().astype(int).tolist() if whole else []
    shown = list(inferences.with_images([whole[pick] for pick in sorted(set(picks))]))
    if not shown:
        raise _nothing(bag, inferences, span)
    write_picture(path, draw_strip([(entry.record, _images(bag, entry)) for entry in shown]))
    return len(shown)


def _paced(
    inferences: Iterable[RecordedInference], times_s: Mapping[int, float], fps: float
) -> Iterator[RecordedInference]:
    """Repeat each inference until the next one's time, which may be not at all."""
    shown: RecordedInference | None = None
    num_frames = 0
    for inference in inferences:
        num_due = round(times_s[inference.record.stamp_ns] * fps)
        if shown is not None and num_due > num_frames:
            yield from [shown] * (num_due - num_frames)
            num_frames = num_due
        shown = inference
    if shown is not None:
        yield from [shown] * max(1, round(_LONGEST_PAUSE_S * fps))


def _times_s(records: Sequence[InferenceRecord]) -> dict[int, float]:
    """Say when each inference, by its stamp, is shown."""
    stamps_ns = [record.stamp_ns for record in records]
    pauses_s = np.minimum(np.diff(stamps_ns) / 1e9, _LONGEST_PAUSE_S)
    return dict(zip(stamps_ns, [0.0, *np.cumsum(pauses_s)], strict=False))


def _images(bag: BagReader, inference: RecordedInference) -> dict[str, Frame]:
    return {name: decode_image(bag, message) for name, message in inference.images.items()}


def _scaled(frame: Frame, width: int | None) -> Frame:
    if width in (None, frame.shape[1]):
        return frame
    height = 2 * round(frame.shape[0] * width / frame.shape[1] / 2)
    return np.asarray(cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _nothing(bag: BagReader, inferences: RecordedInferences, span: Span) -> LightVlaError:
    records = inferences.records
    length_s = (records[-1].stamp_ns - records[0].stamp_ns) / 1e9
    return LightVlaError(
        f"recording {bag.directory}",
        got=f"{len(span.choose(records))} of its {len(records)} inferences, which span {length_s:.1f} s, "
        f"between {span.begin_s:g} and {span.end_s:g} s, and none of them with all its images",
        expected="at least one",
        fix="choose another span; images that are lost need a reliable camera (docs/looking-inside.md)",
    )
