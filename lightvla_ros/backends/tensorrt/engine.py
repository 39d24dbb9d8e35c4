"""The policy's stages on TensorRT plans: one stream, shared buffers, CUDA graphs; no torch.

What leaves a part stays on the device, at the address where the next part reads it: patches, the prompt's
tokens and keys, and the pruner's order and count, which are the decoder's retained indices and their number.
Only the set of retained tokens and the actions come to the host.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from lightvla_ros.backends.length_buckets import bucket_for
from lightvla_ros.backends.manifest import Manifest
from lightvla_ros.backends.tensorrt.api import Flavour
from lightvla_ros.backends.tensorrt.cuda import CudaDevice, Device
from lightvla_ros.backends.tensorrt.inspection import Inspector
from lightvla_ros.backends.tensorrt.pipeline import Pipeline
from lightvla_ros.backends.tensorrt.plan import PlanSet
from lightvla_ros.backends.tensorrt.runtime import TensorRtRuntime
from lightvla_ros.backends.tensorrt.stage import Lengths, PlanRuntime
from lightvla_ros.core.errors import EngineError

# Rows of the decoder besides action rows, prompt and retained tokens: BOS, proprio, "▁" and stop (spec §3.3).
_SPECIAL_ROWS = 4
# Beyond this growth of the sequence the time lost to padding exceeds what a graph saves.
_MAX_PADDING_FACTOR = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineStatistics:
    """How the engine has been running.

    Attributes:
        num_graphs: captured when the engine was made.
        capture_failures: keys that have no graph because TensorRT or CUDA refused.
        graph_launches: decodes that replayed a graph.
        exact_launches: decodes that enqueued their exact shape instead.
        retained_bucket, prompt_bucket: tokens of the last decode, padding included.
    """

    num_graphs: int
    capture_failures: int
    graph_launches: int
    exact_launches: int
    retained_bucket: int
    prompt_bucket: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TensorRtPrompt:
    """An instruction's ids; its tokens and keys are on the device while it is the one in use.

    Changing back to an earlier prompt encodes it again, which costs less than a copy of every instruction.

    Attributes:
        input_ids: int64 [n], BOS first.
        length: M = n - 1 prompt tokens.
        bucket: the prompt tokens with padding.
    """

    input_ids: NDArray[np.int64]
    length: int
    bucket: int


class TensorRtPatches:
    """Stands for the visual tokens of the newest images; there is one buffer, so older ones are gone."""


class TensorRtEngine:
    """`core.policy.Engine` on TensorRT or TensorRT-RTX; one caller at a time.

    All graphs are captured here, so making an engine takes seconds and inference never waits for one.

    Args:
        directory: the bundle.
        manifest: its manifest.
        plan_set: plans built from it for this machine; they are compared with bundle, machine and files.
        device: where to run, closed with the engine; None takes the first visible GPU.
        runtime: what loads plans; None takes the library that built them.
        synchronous: wait after every stage, so that a wall clock around a call measures that stage. Without
            it `encode_images` returns at once and its time shows in the next stage.

    Raises:
        BundleError: the plans belong to another bundle, library or GPU, or a file is damaged.
        EngineError: TensorRT or CUDA is missing or fails, or memory does not suffice.
    """

    def __init__(
        self,
        directory: Path,
        manifest: Manifest,
        plan_set: PlanSet,
        *,
        device: Device | None = None,
        runtime: PlanRuntime | None = None,
        synchronous: bool = False,
    ) -> None:
        self._manifest, self._synchronous = manifest, synchronous
        self._patches: TensorRtPatches | None = None
        self._prompt: TensorRtPrompt | None = None
        self._launches = {True: 0, False: 0}
        self._last_lengths: Lengths = (0, 0)
        plan_set.check_bundle(manifest)
        runtime = runtime or TensorRtRuntime(cast(Flavour, plan_set.fingerprint.flavour))
        device = device or CudaDevice()
        try:
            machine = runtime.machine(device.info())
            plan_set.check_machine(machine)
            plan_set.check_files()
            rebuild = (
                f"lightvla build {directory} --backend {machine.flavour} "
                f"--precision {plan_set.fingerprint.precision} --target {machine.target} --force"
            )
            self._pipeline = Pipeline(manifest, plan_set, runtime, device=device, rebuild=rebuild)
        except BaseException:
            device.close()
            raise
        self._inspector = Inspector(device, self._pipeline, manifest.model.hidden_size)
        self._device: Device | None = device

    @property
    def statistics(self) -> EngineStatistics:
        """How the engine has been running so far."""
        (retained, prompt), stages = self._last_lengths, self._pipeline.stages.values()
        return EngineStatistics(
            num_graphs=sum(stage.num_graphs for stage in stages),
            capture_failures=sum(stage.num_capture_failures for stage in stages),
            graph_launches=self._launches[True],
            exact_launches=self._launches[False],
            retained_bucket=retained,
            prompt_bucket=prompt,
        )

    def encode_prompt(self, input_ids: NDArray[np.int64]) -> TensorRtPrompt:
        """Embed int64 [n] prompt ids, BOS first; they stay on the device until another prompt is used."""
        self._open_device()
        ids = np.array(input_ids, dtype=np.int64)
        vocabulary = self._manifest.model.vocab_size
        if ids.ndim != 1 or not ((ids >= 0) & (ids < vocabulary)).all():
            raise _unfit("prompt", f"ids {ids.tolist()}", f"a list of ids from 0 to {vocabulary - 1}")
        length = len(ids) - 1
        prompt = TensorRtPrompt(
            input_ids=ids,
            length=length,
            bucket=bucket_for(length, self._manifest.prompt_buckets, "prompt tokens"),
        )
        self._use_prompt(prompt)
        return prompt

    def encode_images(self, pixel_values: NDArray[np.float32]) -> TensorRtPatches:
        """Start turning float32 [1, C, S, S] pixels into visual tokens; see `synchronous`."""
        device = self._open_device()
        # Earlier pixels may still be on their way, but then nobody has asked what became of them.
        _write(self._pipeline.host["pixel_values"], pixel_values, "vision")
        self._patches = None
        self._pipeline.stages["vision"].run()
        if self._synchronous:
            device.synchronize()
        self._patches = TensorRtPatches()
        return self._patches

    def prune(
        self, patches: TensorRtPatches, prompt: TensorRtPrompt, proprio: NDArray[np.float32]
    ) -> NDArray[np.int64]:
        """Choose what to retain: int64 [K], ascending; empty where the scores are not finite."""
        device = self._prepare("pruner", patches, prompt, proprio)
        self._pipeline.stages["pruner"].run(self._pipeline.pruner_lengths(prompt.bucket))
        device.synchronize()
        count, order = int(self._pipeline.host["count"][0]), self._pipeline.host["order"]
        if not 0 <= count <= order.shape[1]:
            raise EngineError(
                "retained tokens of the pruner",
                got=count,
                expected=f"0 to {order.shape[1]}",
                fix="run `lightvla verify` on the bundle: its plans do not compute what they should",
            )
        return order[0, :count].copy()

    def decode(
        self,
        patches: TensorRtPatches,
        retained_indices: NDArray[np.int64],
        prompt: TensorRtPrompt,
        proprio: NDArray[np.float32],
    ) -> NDArray[np.float32]:
        """Decode the retained tokens into float32 [chunk_size, action_dim] normalised actions."""
        device = self._prepare("decoder", patches, prompt, proprio)
        lengths = self._decoder_lengths(len(retained_indices), prompt)
        self._set_retained(retained_indices)
        stage = self._pipeline.stages["decoder"]
        stage.run(lengths)
        device.synchronize()
        self._launches[stage.has_graph(lengths)] += 1
        self._last_lengths = lengths
        return self._pipeline.host["normalized_actions"][0].copy()

    def close(self) -> None:
        """Free graphs, contexts, plans and memory; a second call does nothing."""
        if self._device is None:
            return
        self._pipeline.close()
        self._device.close()
        self._device = None

    # -- for comparisons, see `comparison.InspectableEngine` -----------------------------------------

    def read_patches(self, patches: TensorRtPatches) -> NDArray[np.float32]:
        """Return visual tokens as float32 [N, D]."""
        self._open_device()
        self._check_newest("vision", patches)
        return self._inspector.read("patches", self._manifest.model.num_patches)

    def write_patches(self, values: NDArray[np.float32]) -> TensorRtPatches:
        """Overwrite the visual tokens with float32 [N, D], rounded to the plan's precision."""
        self._open_device()
        self._inspector.write("patches", values)
        self._patches = TensorRtPatches()
        return self._patches

    def read_prompt(self, prompt: TensorRtPrompt) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return a prompt's tokens and keys, each float32 [n - 1, D]."""
        self._open_device()
        self._use_prompt(prompt)
        return (
            self._inspector.read("prompt_tokens", prompt.length),
            self._inspector.read("prompt_keys", prompt.length),
        )

    def _prepare(
        self, part: str, patches: TensorRtPatches, prompt: TensorRtPrompt, proprio: NDArray[np.float32]
    ) -> Device:
        """Check what a caller passed on, and bring prompt and proprio into place."""
        device = self._open_device()
        self._check_newest(part, patches)
        self._use_prompt(prompt)
        _write(self._pipeline.host["proprio"], proprio[None], part)
        return device

    def _check_newest(self, part: str, patches: TensorRtPatches) -> None:
        if patches is not self._patches:
            raise _unfit(part, "patches of earlier images", "those of the last `encode_images`")

    def _use_prompt(self, prompt: TensorRtPrompt) -> None:
        if prompt is self._prompt:
            return
        device = self._open_device()
        self._prompt = None
        ids = self._pipeline.host["input_ids"]
        ids[0, : len(prompt.input_ids)] = prompt.input_ids
        self._pipeline.host["prompt_length"][0] = prompt.length
        self._pipeline.stages["prompt"].run((len(prompt.input_ids),))
        device.synchronize()
        self._prompt = prompt

    def _decoder_lengths(self, num_retained: int, prompt: TensorRtPrompt) -> Lengths:
        """Choose the shapes to run: the padded ones of a graph, or the exact ones."""
        bucket = bucket_for(num_retained, self._manifest.length_buckets, "retained tokens")
        padded, exact = (bucket, prompt.bucket), (num_retained, prompt.length)
        fixed = self._manifest.model.num_action_rows + _SPECIAL_ROWS
        too_long = fixed + sum(padded) > _MAX_PADDING_FACTOR * (fixed + sum(exact))
        return exact if too_long or not self._pipeline.stages["decoder"].has_graph(padded) else padded

    def _set_retained(self, indices: NDArray[np.int64]) -> None:
        """Bring a set to the device unless it is the one there; host and device hold the same set."""
        order, count = self._pipeline.host["order"], self._pipeline.host["count"]
        if np.array_equal(indices, order[0, : int(count[0])]):
            return
        N = order.shape[1]
        if indices.min() < 0 or indices.max() >= N:
            raise _unfit("decoder", f"retained indices {indices.tolist()}", f"indices from 0 to {N - 1}")
        order[...] = 0  # what lies behind the count must still be indices
        order[0, : len(indices)] = indices
        count[0] = len(indices)
        self._pipeline.upload["order"]()
        self._pipeline.upload["count"]()

    def _open_device(self) -> Device:
        if self._device is None:
            raise EngineError("engine", got="closed", expected="an open engine", fix="load the policy again")
        return self._device


def _write(target: NDArray[Any], values: NDArray[Any], part: str) -> None:
    if values.shape != target.shape:
        raise _unfit(part, f"shape {values.shape}", f"{target.dtype} {target.shape}")
    target[...] = values


def _unfit(part: str, got: str, expected: str) -> EngineError:
    fix = "check that the observation and prompt belong to this policy"
    return EngineError(f"TensorRT, part '{part}'", got=got, expected=expected, fix=fix)
