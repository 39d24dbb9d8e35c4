"""The policy: observation in, action chunk out, in one straight line of stages.

`Engine` is what a backend must offer; `PrunedPolicy` composes an engine with preprocessing, the
prompt and the normalisation statistics. Nothing here knows which backend runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from lightvla_ros.core.errors import EngineError, LightVlaError, ObservationError
from lightvla_ros.core.metrics import StageClock
from lightvla_ros.core.normalize import ActionNormalizer, ProprioNormalizer, binarize_gripper
from lightvla_ros.core.observation import ActionChunk, Observation
from lightvla_ros.core.preprocess import Fit, Image
from lightvla_ros.core.prompt import PromptEncoder

STAGES = ("preprocess", "vision", "pruner", "decoder", "post")


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySpec:
    """What a policy needs and gives.

    Attributes:
        name: the bundle's or checkpoint's name.
        backend: what runs it ("torch", "onnxruntime", "tensorrt").
        camera_names: cameras in the order the model was trained with.
        grid: (rows, columns) of visual tokens of one camera.
        chunk_size: steps per chunk.
        action_names: one name per action dimension; the gripper is the last.
        proprio_dim: length of the state vector.
        step_period_ns: time between two steps of a chunk.
        fit: how an image that is not square is made square, see `ImagePreprocessor`.
        center_crop: whether only the central 0.9 of the area is seen.
    """

    name: str
    backend: str
    camera_names: tuple[str, ...]
    grid: tuple[int, int]
    chunk_size: int
    action_names: tuple[str, ...]
    proprio_dim: int
    step_period_ns: int
    fit: Fit = "stretch"
    center_crop: bool = True

    @property
    def num_visual_tokens(self) -> int:
        """Visual tokens over all cameras, before pruning."""
        return len(self.camera_names) * self.grid[0] * self.grid[1]


class Health(NamedTuple):
    """Whether a policy can be asked.

    Attributes:
        problem: why no observation can be answered now; None when one can.
        restarts: how often its process has been started again.
    """

    problem: LightVlaError | None = None
    restarts: int = 0


class Policy(Protocol):
    """Anything that turns an observation into an action chunk."""

    @property
    def spec(self) -> PolicySpec:
        """What the policy needs and gives."""
        ...

    @property
    def health(self) -> Health:
        """Whether it can be asked now; cheap, may be asked by any thread."""
        ...

    def check_instruction(self, instruction: str) -> None:
        """Raise `InstructionError` when the instruction cannot be used; cheap, touches no engine."""
        ...

    def predict_chunk(self, observation: Observation) -> ActionChunk:
        """Answer one observation.

        Raises:
            ObservationError: the observation does not fit `spec` or is not finite.
            InstructionError: the instruction cannot be turned into a prompt.
            EngineError: the backend failed or gave non-finite actions.
        """
        ...

    def close(self) -> None:
        """Free what the backend holds; the policy cannot be used afterwards."""
        ...


def warm_up(policy: Policy) -> None:
    """Answer a black observation: first inferences set things up and take longer than any other.

    Raises:
        LightVlaError: the policy fails on it.
    """
    spec, black = policy.spec, np.zeros((480, 640, 3), dtype=np.uint8)
    policy.predict_chunk(
        Observation(
            images=dict.fromkeys(spec.camera_names, black),
            proprio=np.zeros(spec.proprio_dim),
            instruction="warm up",
            stamp_ns=0,
        )
    )


# Camera images, uint8 [H, W, 3] each -> pixel values, in a form that the engine takes.
Preprocessor = Callable[[Sequence[Image]], Any]


class Engine(Protocol):
    """The stages of a pruned policy on one backend.

    `patches` and `prompt` are handles of the backend's own kind (host arrays, device tensors);
    callers only pass them on.
    """

    def encode_prompt(self, input_ids: NDArray[np.int64]) -> Any:
        """Embed a prompt once per instruction.

        Args:
            input_ids: int64 [n], BOS first, without the trailing "▁".

        Returns:
            Handle of the prompt's tokens and pruner keys (spec §4.1: RMS-normalised rows).
        """
        ...

    def encode_images(self, pixel_values: NDArray[np.float32]) -> Any:
        """Turn float32 [1, C, S, S] pixels into a handle of the N projected visual tokens.

        An engine may also take what its own preprocessor gives.
        """
        ...

    def prune(self, patches: Any, prompt: Any, proprio: NDArray[np.float32]) -> NDArray[np.int64]:
        """Choose the tokens to retain (spec §4.1-4.2).

        Args:
            patches: handle from `encode_images`.
            prompt: handle from `encode_prompt`.
            proprio: float32 [P], normalised.

        Returns:
            int64 [K], ascending, 1 <= K <= N; empty where the scores are not finite.
        """
        ...

    def decode(
        self, patches: Any, retained_indices: NDArray[np.int64], prompt: Any, proprio: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Decode the retained tokens into float32 [chunk_size, action_dim] normalised actions."""
        ...

    def close(self) -> None:
        """Free what the backend holds."""
        ...


class PrunedPolicy:
    """LightVLA as one composition: preprocess -> vision -> pruner -> decoder -> unnormalise.

    Not thread safe: one caller at a time. The prompt is encoded once per instruction.

    Args:
        pruning: False decodes every visual token on the same engine, as the unpruned model would.
    """

    def __init__(
        self,
        *,
        spec: PolicySpec,
        engine: Engine,
        preprocessor: Preprocessor,
        prompt_encoder: PromptEncoder,
        proprio_normalizer: ProprioNormalizer,
        action_normalizer: ActionNormalizer,
        pruning: bool = True,
    ) -> None:
        self._spec = spec
        self._pruning = pruning
        self.engine = engine
        self.preprocessor = preprocessor
        self.prompt_encoder = prompt_encoder
        self.proprio_normalizer = proprio_normalizer
        self.action_normalizer = action_normalizer
        self._prompt: tuple[str, Any] | None = None

    @property
    def spec(self) -> PolicySpec:
        """What the policy needs and gives."""
        return self._spec

    @property
    def health(self) -> Health:
        """Always well: a failure is told by `predict_chunk`."""
        return Health()

    def check_instruction(self, instruction: str) -> None:
        """Raise `InstructionError` when the instruction does not fit the model's prompt."""
        self.prompt_encoder.encode(instruction)

    def predict_chunk(self, observation: Observation) -> ActionChunk:
        """Answer one observation; see `Policy.predict_chunk`."""
        self._check(observation)
        clock = StageClock()
        prompt = self._encoded_prompt(observation.instruction)
        proprio = self.proprio_normalizer.normalize(observation.proprio)
        images = [observation.images[name] for name in self._spec.camera_names]
        pixel_values = self.preprocessor(images)
        clock.mark("preprocess")
        patches = self.engine.encode_images(pixel_values)
        clock.mark("vision")
        retained_indices = self._retain(patches, prompt, proprio)
        clock.mark("pruner")
        normalized = self.engine.decode(patches, retained_indices, prompt, proprio)
        clock.mark("decoder")
        if not np.isfinite(normalized).all():
            raise EngineError(
                "actions of the policy",
                got=f"{np.count_nonzero(~np.isfinite(normalized))} non-finite values",
                expected="finite numbers",
                fix="run `lightvla verify` on the bundle; a half-precision overflow shows there",
            )
        actions = binarize_gripper(self.action_normalizer.unnormalize(normalized)).astype(np.float32)
        keep_masks = self._keep_masks(retained_indices)
        clock.mark("post")
        return ActionChunk(
            actions=actions,
            stamp_ns=observation.stamp_ns,
            step_period_ns=self._spec.step_period_ns,
            keep_masks=keep_masks,
            timings_ms=clock.timings_ms,
            instruction=observation.instruction,
            epoch=observation.epoch,
        )

    def close(self) -> None:
        """Free what the backend holds."""
        self.engine.close()

    def _encoded_prompt(self, instruction: str) -> Any:
        if self._prompt is None or self._prompt[0] != instruction:
            self._prompt = (instruction, self.engine.encode_prompt(self.prompt_encoder.encode(instruction)))
        return self._prompt[1]

    def _retain(self, patches: Any, prompt: Any, proprio: NDArray[np.float32]) -> NDArray[np.int64]:
        if not self._pruning:
            return np.arange(self._spec.num_visual_tokens)
        retained_indices = self.engine.prune(patches, prompt, proprio)
        if not len(retained_indices):
            raise EngineError(
                "scores of the pruner",
                got="non-finite values",
                expected="finite numbers",
                fix="run `lightvla verify` on the bundle; a half-precision overflow shows there",
            )
        return retained_indices

    def _keep_masks(self, retained_indices: NDArray[np.int64]) -> Mapping[str, NDArray[np.bool_]]:
        keep = np.zeros(self._spec.num_visual_tokens, dtype=np.bool_)
        keep[retained_indices] = True
        grids = keep.reshape(len(self._spec.camera_names), *self._spec.grid)
        return dict(zip(self._spec.camera_names, grids, strict=True))

    def _check(self, observation: Observation) -> None:
        missing = [name for name in self._spec.camera_names if name not in observation.images]
        if missing:
            raise ObservationError(
                "images of the observation",
                got=sorted(observation.images),
                expected=f"the cameras {list(self._spec.camera_names)}",
                fix=f"provide {missing}",
            )
        proprio = observation.proprio
        if proprio.shape != (self._spec.proprio_dim,) or not np.isfinite(proprio).all():
            raise ObservationError(
                "proprio of the observation",
                got=f"shape {proprio.shape}, values {np.array2string(proprio, precision=3)}",
                expected=f"{self._spec.proprio_dim} finite numbers",
                fix="check the robot state topics and `proprio.source`",
            )
