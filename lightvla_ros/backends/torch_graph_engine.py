"""The policy's stages in PyTorch on a GPU, replayed as CUDA graphs: the fast path without TensorRT.

Launching the thousands of kernels of one chunk costs more than running them, and a graph has static
shapes: so the retained tokens and the prompt are padded to buckets behind masks, and one graph is
captured per pair of buckets when the engine is made, never while it serves. Outputs of one stage are
the inputs of the next by address. What is captured is the model as `torch_fused.py` arranges it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightvla_ros.backends.length_buckets import bucket_for
from lightvla_ros.backends.torch_engine import TorchEngine, running, to_host
from lightvla_ros.backends.torch_fused import fused, profits_from_compiling
from lightvla_ros.core.errors import EngineError
from lightvla_ros.model.lightvla import LightVla
from lightvla_ros.model.pruner import Retained, rms_normalize

# Lazy initialisation of cuBLAS and friends must happen before capture.
_WARM_UP = 3

_Replay = Callable[[], None]

_logger = logging.getLogger(__name__)


def torch_engine(
    model: LightVla, retained_buckets: Sequence[int], prompt_buckets: Sequence[int]
) -> TorchEngine | TorchGraphEngine:
    """Return the engine that suits the model's device: exact shapes on a CPU, graphs on a GPU."""
    if model.projector.fc1.weight.device.type != "cuda":
        return TorchEngine(model)
    return TorchGraphEngine(model, retained_buckets=retained_buckets, prompt_buckets=prompt_buckets)


class GraphPrompt(NamedTuple):
    """One instruction, padded with zeros to its bucket.

    Attributes:
        tokens: [1, bucket, D].
        keys: float32 [1, bucket, D].
        length: tokens before the padding.
    """

    tokens: Tensor
    keys: Tensor
    length: int


class TorchGraphEngine:
    """`core.policy.Engine` over a `LightVla` with static shapes; patches are the engine's own [1, N, D].

    Args:
        model: on the device and in the precision it shall run in.
        retained_buckets: retained counts to capture, ascending, up to N.
        prompt_buckets: prompt lengths (BOS not counted) to capture, ascending.
        capture: False runs the same padded stages without graphs, for devices that have none.
    """

    def __init__(
        self,
        model: LightVla,
        *,
        retained_buckets: Sequence[int],
        prompt_buckets: Sequence[int],
        capture: bool = True,
    ) -> None:
        self.model = model.eval()
        self._retained_buckets, self._prompt_buckets = tuple(retained_buckets), tuple(prompt_buckets)
        weight = model.projector.fc1.weight
        self._device, self._dtype = weight.device, weight.dtype
        self._capture = capture
        self._pool = torch.cuda.graph_pool_handle() if capture else None
        self._bound: GraphPrompt | None = None
        self._chosen: NDArray[np.int64] | None = None
        self._closed = False
        with running("capture"):
            self._allocate()
            self._fuse()
            self._capture_all()

    def encode_prompt(self, input_ids: NDArray[np.int64]) -> GraphPrompt:
        """Embed int64 [n] prompt ids once per instruction."""
        length = len(input_ids) - 1
        bucket = bucket_for(length, self._prompt_buckets, "prompt tokens")
        with running("prompt"):
            embedded = self.model.embed_prompt(torch.tensor(input_ids, device=self._device)[None])
            tokens = embedded.new_zeros(1, bucket, embedded.shape[-1])
            tokens[:, :length] = embedded
            return GraphPrompt(tokens, rms_normalize(tokens), length)

    def encode_images(self, pixel_values: NDArray[np.float32] | Tensor) -> Tensor:
        """Turn float32 [1, C, S, S] pixels into [1, N, D] visual tokens, overwritten by the next call."""
        with self._serving("vision"):
            if isinstance(pixel_values, np.ndarray):
                pixel_values = torch.from_numpy(pixel_values)
            self._pixels.copy_(pixel_values)
            self._vision()
            if self._device.type == "cuda":
                torch.cuda.current_stream(self._device).synchronize()  # a stage's latency is its own
        return self._patches

    def prune(self, patches: Tensor, prompt: GraphPrompt, proprio: NDArray[np.float32]) -> NDArray[np.int64]:
        """Choose what to retain: int64 [K], ascending."""
        self._check_own(patches)
        with self._serving("pruner"):
            self._bind(prompt, proprio)
            self._pruners[prompt.tokens.shape[1]]()
            order_and_count = self._retained[0].cpu().numpy()
            self._chosen = order_and_count[: order_and_count[-1]].copy()
        return self._chosen

    def decode(
        self,
        patches: Tensor,
        retained_indices: NDArray[np.int64],
        prompt: GraphPrompt,
        proprio: NDArray[np.float32],
    ) -> NDArray[np.float32]:
        """Decode the retained tokens into float32 [chunk_size, action_dim] normalised actions."""
        self._check_own(patches)
        bucket = bucket_for(len(retained_indices), self._retained_buckets, "retained tokens")
        with self._serving("decoder"):
            self._bind(prompt, proprio)
            if retained_indices is not self._chosen:
                self._set_retained(retained_indices)
            self._decoders[bucket, prompt.tokens.shape[1]]()
            actions: NDArray[np.float32] = self._actions[0].cpu().numpy().copy()
        return actions

    def close(self) -> None:
        """Free the graphs; the model belongs to the caller."""
        self._closed = True
        self._pruners.clear()
        self._decoders.clear()
        self._pool = None

    # -- for comparisons, see `comparison.InspectableEngine` -----------------------------------------

    def read_patches(self, patches: Tensor) -> NDArray[np.float32]:
        """Return visual tokens as float32 [N, D]."""
        self._check_own(patches)
        return to_host(patches[0])

    def write_patches(self, values: NDArray[np.float32]) -> Tensor:
        """Overwrite the visual tokens with float32 [N, D] and return their handle."""
        with running("vision"):
            self._patches.copy_(torch.from_numpy(values)[None])
        return self._patches

    def read_prompt(self, prompt: GraphPrompt) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return a prompt's tokens and keys, each float32 [n-1, D]."""
        return to_host(prompt.tokens[0, : prompt.length]), to_host(prompt.keys[0, : prompt.length])

    # -- static tensors and what runs on them --------------------------------------------------------

    def _fuse(self) -> None:
        """Arrange the model for the device, compiled where that works."""
        if profits_from_compiling(self._device):
            self._fused = fused(self.model, compiled=True)
            try:
                self._run_all()
                return
            except Exception as error:  # noqa: BLE001  # a compiler fails in many ways; the model needs none
                _logger.warning("torch.compile does not work here, so kernels are not joined: %s", error)
            self._fused = self.model  # lets go of the joined weights before they are joined again
        self._fused = fused(self.model, compiled=False)

    def _run_all(self) -> None:
        """Run every stage once, for the largest decoder and the smallest."""
        self._run_vision()
        self._run_pruner(self._prompt_buckets[-1])
        for retained in (self._retained_buckets[-1], self._retained_buckets[0]):
            self._run_decoder(retained, self._prompt_buckets[-1])

    def _allocate(self) -> None:
        config, longest = self.model.config, self._prompt_buckets[-1]
        N, D, S = config.num_patches, config.hidden_size, config.image_size
        channels = 3 * len(config.towers) * config.num_cameras

        def zeros(*shape: int, dtype: torch.dtype) -> Tensor:
            return torch.zeros(shape, dtype=dtype, device=self._device)

        self._pixels = zeros(1, channels, S, S, dtype=torch.float32)
        self._proprio = zeros(1, config.proprio_dim, dtype=self._dtype)
        self._prompt_tokens = zeros(1, longest, D, dtype=self._dtype)
        self._prompt_keys = zeros(1, longest, D, dtype=torch.float32)
        self._prompt_length = zeros(1, dtype=torch.int64) + 1
        self._patches = zeros(1, N, D, dtype=self._dtype)
        # One tensor, so that the host waits once for both.
        self._retained = torch.arange(N + 1, device=self._device)[None]
        self._order, self._count = self._retained[:, :N], self._retained[:, N]
        self._actions = zeros(1, config.chunk_size, config.action_dim, dtype=torch.float32)

    def _capture_all(self) -> None:
        self._vision = self._captured(self._run_vision)
        self._pruners = {
            prompt: self._captured(partial(self._run_pruner, prompt)) for prompt in self._prompt_buckets
        }
        # The largest first: the smaller ones then fit into the memory it was given.
        self._decoders = {
            (retained, prompt): self._captured(partial(self._run_decoder, retained, prompt))
            for retained in reversed(self._retained_buckets)
            for prompt in reversed(self._prompt_buckets)
        }

    def _captured(self, stage: _Replay) -> _Replay:
        if not self._capture:
            return stage
        side = torch.cuda.Stream(self._device)
        side.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(side):
            for _ in range(_WARM_UP):
                stage()
        torch.cuda.current_stream(self._device).wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            stage()
        return graph.replay

    def _run_vision(self) -> None:
        self._patches.copy_(self._fused.encode_images(self._pixels.to(self._dtype)))

    def _run_pruner(self, prompt: int) -> None:
        keep_mask = self.model.prune(
            self._patches, self._prompt_keys[:, :prompt], self._proprio, prompt_mask=self._real(prompt)
        )
        retained: Retained = self.model.pruner.retained(keep_mask)
        self._order.copy_(retained.order)
        self._count.copy_(retained.count)

    def _run_decoder(self, retained: int, prompt: int) -> None:
        indices = self._order[:, :retained]
        hidden = self._fused.decode(
            self._patches.gather(1, indices[:, :, None].expand(-1, -1, self._patches.shape[-1])),
            indices,
            self._prompt_tokens[:, :prompt],
            self._proprio,
            visual_mask=torch.arange(retained, device=self._device)[None] < self._count[:, None],
            prompt_mask=self._real(prompt),
        )
        self._actions.copy_(self._fused.action_head(hidden))

    def _real(self, prompt: int) -> Tensor:
        return torch.arange(prompt, device=self._device)[None] < self._prompt_length[:, None]

    # -- inputs --------------------------------------------------------------------------------------

    def _bind(self, prompt: GraphPrompt, proprio: NDArray[np.float32]) -> None:
        self._proprio.copy_(torch.from_numpy(proprio)[None])
        if prompt is not self._bound:
            bucket = prompt.tokens.shape[1]
            self._prompt_tokens[:, :bucket] = prompt.tokens
            self._prompt_keys[:, :bucket] = prompt.keys
            self._prompt_length.fill_(prompt.length)
            self._bound = prompt

    def _set_retained(self, indices: NDArray[np.int64]) -> None:
        # What lies behind the count is hidden by the mask but must be an index.
        self._order[0, : len(indices)] = torch.from_numpy(indices).to(self._device)
        self._count.fill_(len(indices))
        self._chosen = None

    def _check_own(self, patches: Tensor) -> None:
        if patches is not self._patches:
            raise EngineError(
                "patches",
                got="a tensor of somebody else",
                expected="what `encode_images` of this engine returned",
                fix="encode the images with this engine",
            )

    def _serving(self, stage: str) -> AbstractContextManager[None]:
        if self._closed:
            raise EngineError("engine", got="closed", expected="an open engine", fix="load the policy again")
        return running(stage)
