"""What the two processes say to each other, as message bodies and arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from numpy.typing import NDArray

from lightvla_ros.core import errors
from lightvla_ros.core.errors import EngineError, LightVlaError
from lightvla_ros.core.observation import ActionChunk, Observation
from lightvla_ros.core.policy import PolicySpec

Message = tuple[dict[str, Any], dict[str, NDArray[Any]]]

_IMAGE = "image:"
_MASK = "mask:"


def pack_observation(observation: Observation) -> Message:
    """Turn an observation into a message."""
    body = {
        "instruction": observation.instruction,
        "stamp_ns": observation.stamp_ns,
        "epoch": observation.epoch,
    }
    images = {_IMAGE + name: image for name, image in observation.images.items()}
    return body, {"proprio": observation.proprio, **images}


def unpack_observation(body: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Observation:
    """Turn a message back into an observation, whose arrays last until the next message."""
    return Observation(**body, proprio=arrays["proprio"], images=_named(arrays, _IMAGE))


def pack_chunk(chunk: ActionChunk) -> Message:
    """Turn a chunk into a message."""
    body = {
        "stamp_ns": chunk.stamp_ns,
        "step_period_ns": chunk.step_period_ns,
        "timings_ms": dict(chunk.timings_ms),
        "instruction": chunk.instruction,
        "epoch": chunk.epoch,
    }
    masks = {_MASK + name: mask for name, mask in chunk.keep_masks.items()}
    return {"chunk": body}, {"actions": chunk.actions, **masks}


def unpack_chunk(body: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> ActionChunk:
    """Turn a message back into a chunk that owns its arrays.

    Raises:
        LightVlaError: the message is the error of the other side.
    """
    if "error" in body:
        raise unpack_error(body["error"])
    owned = {name: array.copy() for name, array in arrays.items()}
    return ActionChunk(**body["chunk"], actions=owned["actions"], keep_masks=_named(owned, _MASK))


def pack_spec(spec: PolicySpec) -> dict[str, Any]:
    """Turn what a policy needs and gives into a message body."""
    return {"spec": asdict(spec)}


def unpack_spec(body: Mapping[str, Any]) -> PolicySpec:
    """Turn a message body back.

    Raises:
        LightVlaError: the message is the error of the other side.
    """
    if "error" in body:
        raise unpack_error(body["error"])
    lists = {name: tuple(value) for name, value in body["spec"].items() if isinstance(value, list)}
    return PolicySpec(**{**body["spec"], **lists})


def pack_error(error: Exception) -> dict[str, Any]:
    """Turn an exception into a message body."""
    if not isinstance(error, LightVlaError):
        error = EngineError(
            "inference",
            got=f"{type(error).__name__}: {error}",
            expected="an answer",
            fix="run `lightvla verify` on the bundle; where that passes, report this message",
        )
    got = None if error.got is None else str(error.got)
    fields = {"what": error.what, "got": got, "expected": error.expected, "fix": error.fix}
    return {"error": {"kind": type(error).__name__, **fields}}


def unpack_error(content: Mapping[str, Any]) -> LightVlaError:
    """Turn a message body back into the exception it was."""
    fields = dict(content)
    kind = getattr(errors, fields.pop("kind"), EngineError)
    error: LightVlaError = kind(fields.pop("what"), **fields)
    return error


def _named(arrays: Mapping[str, NDArray[Any]], prefix: str) -> dict[str, NDArray[Any]]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
