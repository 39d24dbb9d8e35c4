"""The policy's stages in ONNX Runtime on the CPU, from the ONNX parts of a bundle."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lightvla_ros.backends.manifest import PARTS, Manifest
from lightvla_ros.core.errors import EngineError

if TYPE_CHECKING:
    import onnxruntime

_ERRORS_ONLY = 3


class OrtPrompt(NamedTuple):
    """What one instruction costs once.

    Attributes:
        tokens: float32 [1, n-1, D].
        keys: float32 [1, n-1, D].
    """

    tokens: NDArray[np.float32]
    keys: NDArray[np.float32]


class OrtEngine:
    """`core.policy.Engine` on ONNX Runtime's CPU provider; patches are float32 [1, N, D].

    Args:
        directory: the bundle.
        manifest: its manifest; the files are compared with it first.
        num_threads: threads of one operator; None takes half of the CPUs this process may use, because
            the robot's other processes need the rest.

    Raises:
        BundleError: a file is missing, truncated or of another content.
        EngineError: ONNX Runtime is missing or cannot load a part.
    """

    def __init__(self, directory: Path, manifest: Manifest, *, num_threads: int | None = None) -> None:
        manifest.check_files(directory)
        options = _session_options(num_threads or max(1, len(os.sched_getaffinity(0)) // 2))
        self._sessions = {part: _session(manifest.part_path(directory, part), options) for part in PARTS}

    def encode_prompt(self, input_ids: NDArray[np.int64]) -> OrtPrompt:
        """Embed int64 [n] prompt ids once per instruction."""
        return OrtPrompt(*self._run("prompt", {"input_ids": input_ids[None]}))

    def encode_images(self, pixel_values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Turn float32 [1, C, S, S] pixels into float32 [1, N, D] visual tokens."""
        return self._run("vision", {"pixel_values": pixel_values})[0]

    def prune(
        self, patches: NDArray[np.float32], prompt: OrtPrompt, proprio: NDArray[np.float32]
    ) -> NDArray[np.int64]:
        """Choose what to retain: int64 [K], ascending."""
        feed: dict[str, NDArray[Any]] = {
            "patches": patches,
            "prompt_keys": prompt.keys,
            "prompt_length": np.array([prompt.keys.shape[1]]),
            "proprio": proprio[None],
        }
        order, count = self._run("pruner", feed)
        return order[0, : count[0]]

    def decode(
        self,
        patches: NDArray[np.float32],
        retained_indices: NDArray[np.int64],
        prompt: OrtPrompt,
        proprio: NDArray[np.float32],
    ) -> NDArray[np.float32]:
        """Decode the retained tokens into float32 [chunk_size, action_dim] normalised actions."""
        feed: dict[str, NDArray[Any]] = {
            "patches": patches,
            "retained_indices": retained_indices[None],
            "retained_count": np.array([len(retained_indices)]),
            "prompt_tokens": prompt.tokens,
            "prompt_length": np.array([prompt.tokens.shape[1]]),
            "proprio": proprio[None],
        }
        return self._run("decoder", feed)[0][0]

    def close(self) -> None:
        """Free the sessions."""
        self._sessions.clear()

    def _run(self, part: str, feed: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        if part not in self._sessions:
            raise EngineError("engine", got="closed", expected="an open engine", fix="load the policy again")
        try:
            return list(self._sessions[part].run(None, dict(feed)))
        except Exception as e:
            shapes = {name: (str(array.dtype), array.shape) for name, array in feed.items()}
            raise EngineError(
                f"ONNX Runtime, part '{part}'",
                got=f"{e} for {shapes}",
                expected="inputs that fit the model",
                fix="check that the observation and prompt belong to this policy",
            ) from e


def _session_options(num_threads: int) -> onnxruntime.SessionOptions:
    ort = _onnxruntime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = num_threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _ERRORS_ONLY
    # Spinning burns a whole core between two inferences, and the robot's other processes need it.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def _session(path: Path, options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
    try:
        return _onnxruntime().InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as e:
        raise EngineError(
            str(path),
            got=str(e).splitlines()[0],
            expected="a graph ONNX Runtime can run",
            fix="run `lightvla verify` on the bundle, or update onnxruntime",
        ) from e


def _onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError as e:
        raise EngineError(
            "backend 'onnxruntime'", got=str(e), expected="onnxruntime", fix="pip install onnxruntime"
        ) from e
    return onnxruntime
