"""What counts as the same inference."""

from __future__ import annotations

from dataclasses import replace

import pytest
from bag_maker import record

from lightvla_ros.recording.parity import Parity


def test_the_same_inference_is_identical() -> None:
    parity = Parity()
    parity.add(record(3), replace(record(3), stamp_ns=1, timings_ms={}, epoch=9))
    assert (parity.compared, parity.identical, parity.max_abs_error, parity.kept_iou) == (1, 1, 0.0, 1.0)


def test_the_smallest_difference_of_an_action_counts() -> None:
    parity = Parity()
    other = replace(record(3), actions=(*record(3).actions[:-1], (record(3).actions[0][0] + 1e-7,) * 7))
    parity.add(record(3), other)
    assert parity.identical == 0
    assert parity.max_abs_error == pytest.approx(1e-7)
    assert parity.kept_iou == 1.0


def test_a_patch_more_or_less_counts() -> None:
    parity = Parity()
    wrist = replace(record(3).cameras["wrist"], retained=(0, 1, 2))
    parity.add(record(3), replace(record(3), cameras={**record(3).cameras, "wrist": wrist}))
    assert (parity.identical, parity.max_abs_error, parity.kept_iou) == (0, 0.0, 7 / 8)


def test_the_worst_of_several_is_told() -> None:
    parity = Parity()
    parity.add(record(1), record(1))
    parity.add(record(1), replace(record(1), actions=record(1).actions[:4]))
    assert (parity.compared, parity.identical, parity.max_abs_error) == (2, 1, float("inf"))
