"""The policy's stages in ONNX Runtime, from the ONNX parts of a bundle.

Retained indices and prompts go in as long as they are: nothing is padded. Arrays go in without a copy and
come out as new ones, so a result stays what it was whatever runs next.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lightvla_ros.backends.manifest import PARTS, Manifest
from lightvla_ros.core.errors import BundleError, EngineError

if TYPE_CHECKING:
    import onnxruntime

_ERRORS_ONLY = 3
_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
_BACKEND = "onnxruntime"
# Longer than the pauses between two operators.
_SPIN_US = "200"


@dataclass(frozen=True, slots=True, kw_only=True)
class OrtOptions:
    """What is worth choosing: the other settings gain nothing, as `bench/onnxruntime_options.py` shows.

    Attributes:
        num_threads: threads of one operator; None takes half of the CPUs this process may use, because
            the robot's other processes need the rest.
        spinning: threads wait for the next operator in a loop, at most 0.2 ms long. For two threads or more
            on cores that nothing else uses; on shared ones it is slower than a single thread.
        provider: "cpu", or "cuda" where the installed ONNX Runtime has it; what "cuda" gains was not
            measured. TensorRT's provider is not offered: it builds an engine at run time whenever its
            cache does not fit.
    """

    num_threads: int | None = None
    spinning: bool = False
    provider: str = "cpu"

    @classmethod
    def from_manifest(cls, manifest: Manifest, *, num_threads: int | None = None) -> OrtOptions:
        """Read `runtime.onnxruntime` of a manifest; an argument that is not None wins.

        Raises:
            BundleError: an option is unknown or its value is not allowed.
        """
        options = dict(manifest.runtime.get(_BACKEND, {}))
        known = [f.name for f in fields(cls)]
        for name in options.keys() - known:
            raise _bad_option(name, "unknown", f"one of {known}")
        default = cls()
        threads = options.get("num_threads")
        spinning = options.get("spinning", default.spinning)
        provider = options.get("provider", default.provider)
        if threads is not None and (type(threads) is not int or threads < 1):
            raise _bad_option("num_threads", repr(threads), "null or a whole number from 1 on")
        if type(spinning) is not bool:
            raise _bad_option("spinning", repr(spinning), "true or false")
        if provider not in list(_PROVIDERS):
            raise _bad_option("provider", repr(provider), f"one of {list(_PROVIDERS)}")
        return cls(num_threads=num_threads or threads, spinning=spinning, provider=provider)


def _bad_option(name: str, got: str, expected: str) -> BundleError:
    return BundleError(
        f"manifest.json: runtime.{_BACKEND}.{name}",
        got=got,
        expected=expected,
        fix="correct the entry, or remove it for the default",
    )


class OrtPrompt(NamedTuple):
    """What one instruction costs once.

    Attributes:
        tokens: [1, n-1, D] in the bundle's precision.
        keys: float32 [1, n-1, D].
    """

    tokens: NDArray[Any]
    keys: NDArray[np.float32]


class OrtEngine:
    """`core.policy.Engine` on ONNX Runtime; patches are [1, N, D] in the bundle's precision.

    Args:
        directory: the bundle.
        manifest: its manifest; the files are compared with it first.
        num_threads: threads of one operator; None takes the manifest's or the default of `OrtOptions`.

    Raises:
        BundleError: a file is missing, truncated or of another content, or an option of the manifest is
            wrong.
        EngineError: ONNX Runtime is missing, lacks the provider, or cannot run this precision or a part.
    """

    def __init__(self, directory: Path, manifest: Manifest, *, num_threads: int | None = None) -> None:
        options = OrtOptions.from_manifest(manifest, num_threads=num_threads)
        _check_precision(manifest)
        manifest.check_files(directory)
        self._pruner_inputs = tuple(spec.name for spec in manifest.parts["pruner"].inputs)
        self._patches_dtype = manifest.parts["vision"].outputs[0].dtype
        self._sessions = {part: _session(manifest.part_path(directory, part), options) for part in PARTS}

    def encode_prompt(self, input_ids: NDArray[np.int64]) -> OrtPrompt:
        """Embed int64 [n] prompt ids once per instruction."""
        return OrtPrompt(*self._run("prompt", {"input_ids": input_ids[None]}))

    def encode_images(self, pixel_values: NDArray[np.float32]) -> NDArray[Any]:
        """Turn float32 [1, C, S, S] pixels into [1, N, D] visual tokens."""
        return self._run("vision", {"pixel_values": pixel_values})[0]

    def prune(
        self, patches: NDArray[Any], prompt: OrtPrompt, proprio: NDArray[np.float32]
    ) -> NDArray[np.int64]:
        """Choose what to retain: int64 [K], ascending."""
        feed: dict[str, NDArray[Any]] = {
            "patches": patches,
            "prompt_keys": prompt.keys,
            "prompt_length": np.array([prompt.keys.shape[1]]),
            "proprio": proprio[None],
        }
        order, count = self._run("pruner", {name: feed[name] for name in self._pruner_inputs})
        return order[0, : count[0]]

    def decode(
        self,
        patches: NDArray[Any],
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

    # -- for comparisons, see `comparison.InspectableEngine` -----------------------------------------

    def read_patches(self, patches: NDArray[Any]) -> NDArray[np.float32]:
        """Return visual tokens as float32 [N, D]."""
        return patches[0].astype(np.float32)

    def write_patches(self, values: NDArray[np.float32]) -> NDArray[Any]:
        """Return float32 [N, D] visual tokens as a handle, in the precision of the bundle."""
        return values[None].astype(self._patches_dtype)

    def read_prompt(self, prompt: OrtPrompt) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return a prompt's tokens and keys, each float32 [n-1, D]."""
        return prompt.tokens[0].astype(np.float32), prompt.keys[0].astype(np.float32)

    def _run(self, part: str, feed: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        if part not in self._sessions:
            raise EngineError("engine", got="closed", expected="an open engine", fix="load the policy again")
        try:
            return list(self._sessions[part].run(None, dict(feed)))
        except Exception as e:
            shapes = {name: (str(array.dtype), array.shape) for name, array in feed.items()}
            raise EngineError(
                f"ONNX Runtime, part '{part}'",
                got=f"{' '.join(str(e).split())} for {shapes}",
                expected="inputs that fit the model",
                fix="check that the observation and prompt belong to this policy",
            ) from e


def session_options(options: OrtOptions) -> onnxruntime.SessionOptions:
    """Translate options into ONNX Runtime's.

    Raises:
        EngineError: ONNX Runtime is not installed.
    """
    translated = _onnxruntime().SessionOptions()
    translated.intra_op_num_threads = options.num_threads or max(1, len(os.sched_getaffinity(0)) // 2)
    translated.inter_op_num_threads = 1
    translated.log_severity_level = _ERRORS_ONLY
    # Without a limit idle threads of one part's session hold up those of the next part's, and burn cores
    # between two inferences that the robot's other processes need.
    translated.add_session_config_entry("session.intra_op.spin_duration_us", _SPIN_US)
    translated.add_session_config_entry("session.intra_op.allow_spinning", str(int(options.spinning)))
    return translated


def _session(path: Path, options: OrtOptions) -> onnxruntime.InferenceSession:
    provider = _PROVIDERS[options.provider]
    _check_provider(options.provider, _onnxruntime().get_available_providers())
    try:
        session = _onnxruntime().InferenceSession(
            str(path), session_options(options), providers=list(dict.fromkeys((provider, _PROVIDERS["cpu"])))
        )
    except Exception as e:
        raise EngineError(
            str(path),
            got=str(e).splitlines()[0],
            expected="a graph ONNX Runtime can run",
            fix="run `lightvla verify` on the bundle, or update onnxruntime",
        ) from e
    # A provider whose libraries do not load is dropped with a warning only.
    _check_provider(options.provider, session.get_providers())
    return session


def _check_provider(name: str, present: Sequence[str]) -> None:
    if _PROVIDERS[name] not in present:
        raise EngineError(
            f"provider '{name}' of ONNX Runtime",
            got=f"only {list(present)}",
            expected=_PROVIDERS[name],
            fix="pip install onnxruntime-gpu in place of onnxruntime, with the CUDA it is made for, "
            f'or set runtime.{_BACKEND}.provider to "cpu" in manifest.json',
        )


def _check_precision(manifest: Manifest) -> None:
    if manifest.precision == "bfloat16":
        raise EngineError(
            f"backend '{_BACKEND}'",
            got="a bundle in bfloat16",
            expected="float32 or float16: ONNX Runtime lacks operators for bfloat16",
            fix="export with --precision float32, or use backend 'torch' or 'tensorrt'",
        )


def _onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError as e:
        raise EngineError(
            f"backend '{_BACKEND}'", got=str(e), expected="onnxruntime", fix="pip install onnxruntime"
        ) from e
    return onnxruntime
