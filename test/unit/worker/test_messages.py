"""Observations, chunks and errors survive the way to another process and back."""

from __future__ import annotations

import json

import numpy as np
import pytest

from lightvla_ros.core.errors import EngineError, InstructionError, ObservationError
from lightvla_ros.core.observation import ActionChunk, Observation
from lightvla_ros.core.policy import PolicySpec
from lightvla_ros.worker.messages import (
    pack_chunk,
    pack_error,
    pack_observation,
    pack_spec,
    unpack_chunk,
    unpack_error,
    unpack_observation,
    unpack_spec,
)


def test_an_observation_survives() -> None:
    images = {name: np.full((4, 5, 3), i, np.uint8) for i, name in enumerate(("third_person", "wrist"))}
    sent = Observation(images=images, proprio=np.arange(8.0), instruction="put", stamp_ns=7, epoch=3)
    body, arrays = pack_observation(sent)
    got = unpack_observation(json.loads(json.dumps(body)), arrays)
    assert (got.instruction, got.stamp_ns, got.epoch) == ("put", 7, 3)
    assert list(got.images) == ["third_person", "wrist"]
    np.testing.assert_array_equal(got.images["wrist"], images["wrist"])
    np.testing.assert_array_equal(got.proprio, sent.proprio)


def test_a_chunk_survives_and_owns_its_arrays() -> None:
    sent = ActionChunk(
        actions=np.ones((8, 7), np.float32),
        stamp_ns=5,
        step_period_ns=50,
        keep_masks={"wrist": np.eye(4, dtype=bool)},
        timings_ms={"vision": 1.5},
        instruction="put",
        epoch=2,
    )
    body, arrays = pack_chunk(sent)
    got = unpack_chunk(json.loads(json.dumps(body)), arrays)
    arrays["actions"][:] = 9
    np.testing.assert_array_equal(got.actions, np.ones((8, 7)))
    np.testing.assert_array_equal(got.keep_masks["wrist"], np.eye(4, dtype=bool))
    assert (got.stamp_ns, got.step_period_ns, got.timings_ms, got.epoch) == (5, 50, {"vision": 1.5}, 2)


def test_a_spec_survives() -> None:
    spec = PolicySpec(
        name="mini", backend="torch", camera_names=("a", "b"), grid=(8, 8), chunk_size=8,
        action_names=("x", "y"), proprio_dim=8, step_period_ns=50_000_000,
    )  # fmt: skip
    assert unpack_spec(json.loads(json.dumps(pack_spec(spec)))) == spec


@pytest.mark.parametrize("error", [
    ObservationError("proprio", got=(3,), expected="8 numbers", fix="check it"),
    InstructionError("instruction", got="empty text"),
    EngineError("engine broke"),
])  # fmt: skip
def test_our_errors_come_back_as_they_were(error: Exception) -> None:
    got = unpack_error(json.loads(json.dumps(pack_error(error)))["error"])
    assert (type(got), str(got)) == (type(error), str(error))
    with pytest.raises(type(error)):
        unpack_chunk(pack_error(error), {})


def test_foreign_errors_come_back_as_engine_errors() -> None:
    got = unpack_error(pack_error(ZeroDivisionError("division by zero"))["error"])
    assert type(got) is EngineError
    assert "ZeroDivisionError: division by zero" in str(got)
    assert "lightvla verify" in got.fix
