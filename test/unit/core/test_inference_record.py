"""An inference record comes back from its JSON bit for bit, and nothing else passes for one."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightvla_ros.core.errors import LightVlaError
from lightvla_ros.core.grid_region import grid_region
from lightvla_ros.core.inference_record import CameraRecord, InferenceRecord

SINGLE = st.floats(width=32, allow_nan=False, allow_infinity=False)
DOUBLE = st.floats(allow_nan=False, allow_infinity=False)


def record(**changes: Any) -> InferenceRecord:
    camera = CameraRecord(
        topic="/camera/wrist/image",
        stamp_ns=12,
        upside_down=False,
        grid=(4, 3),
        region=grid_region(480, 640),
        retained=(0, 5, 11),
    )
    values: dict[str, Any] = {
        "stamp_ns": 1_700_000_000_123_456_789,
        "engine": "mini",
        "backend": "onnxruntime",
        "instruction": 'put "the" cube in the Körbchen',
        "epoch": 3,
        "state": (0.1, -0.2),
        "actions": ((0.5, -1.0), (0.25, 1.0)),
        "step_period_ns": 50_000_000,
        "taken": True,
        "timings_ms": {"vision": 3.5},
        "cameras": {"third_person": camera, "wrist": camera},
    }
    return InferenceRecord(**{**values, **changes})


@given(
    actions=st.lists(st.tuples(SINGLE, SINGLE), min_size=1, max_size=8),
    state=st.lists(DOUBLE, max_size=8),
)
def test_a_record_survives_json_bit_for_bit(actions: list[tuple[float, ...]], state: list[float]) -> None:
    before = record(actions=tuple(actions), state=tuple(state))
    after = InferenceRecord.from_json(before.to_json())
    assert after == before
    single = [np.array(chunk.actions, np.float32).tobytes() for chunk in (before, after)]
    assert single[0] == single[1]


def test_tokens_are_counted_over_all_cameras() -> None:
    assert record().num_retained == 6
    assert record().num_visual_tokens == 24
    mask = record().cameras["wrist"].keep_mask
    assert mask.shape == (4, 3)
    assert np.argwhere(mask).tolist() == [[0, 0], [1, 2], [3, 2]]


def test_what_a_later_version_adds_is_ignored() -> None:
    values = json.loads(record().to_json())
    values["mood"] = "good"
    assert InferenceRecord.from_json(json.dumps(values)) == record()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda values: values.pop("actions"),
        lambda values: values.update(state=["much"]),
        lambda values: values["cameras"]["wrist"].update(retained=[12]),
        lambda values: values["cameras"]["wrist"].update(grid=[4]),
        lambda values: values["cameras"]["wrist"].update(region=[0.9, 0, 0.1, 1]),
    ],
)
def test_a_record_that_lacks_something_is_refused(spoil: Any) -> None:
    values = json.loads(record().to_json())
    spoil(values)
    with pytest.raises(LightVlaError, match=r"message on policy/inference; got .*Fix: check that nothing"):
        InferenceRecord.from_json(json.dumps(values))


@pytest.mark.parametrize("text", ["", "hello", "[]", "3"])
def test_any_other_text_is_refused(text: str) -> None:
    with pytest.raises(LightVlaError, match="expected the JSON of an inference record"):
        InferenceRecord.from_json(text)
