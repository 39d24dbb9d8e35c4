"""The policy's stages in PyTorch: the reference engine, on CPU or GPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightvla_ros.core.errors import EngineError
from lightvla_ros.model.lightvla import LightVla
from lightvla_ros.model.pruner import rms_normalize


class TorchPrompt(NamedTuple):
    """What one instruction costs once: tokens [1, n-1, D] and their float32 pruner keys."""

    tokens: Tensor
    keys: Tensor


class TorchEngine:
    """`core.policy.Engine` over a `LightVla`; patches are [1, N, D] on the model's device."""

    def __init__(self, model: LightVla) -> None:
        self.model = model.eval()
        weight = model.projector.fc1.weight
        self._device, self._dtype = weight.device, weight.dtype

    def encode_prompt(self, input_ids: NDArray[np.int64]) -> TorchPrompt:
        """Embed int64 [n] prompt ids once per instruction."""
        with running("prompt"):
            ids = torch.tensor(input_ids, device=self._device)[None]
            tokens = self.model.embed_prompt(ids)
            return TorchPrompt(tokens, rms_normalize(tokens))

    def encode_images(self, pixel_values: NDArray[np.float32]) -> Tensor:
        """Turn float32 [1, C, S, S] pixels into [1, N, D] visual tokens."""
        with running("vision"):
            return self.model.encode_images(self._tensor(pixel_values))

    def prune(self, patches: Tensor, prompt: TorchPrompt, proprio: NDArray[np.float32]) -> NDArray[np.int64]:
        """Choose what to retain: int64 [K], ascending."""
        with running("pruner"):
            keep_mask = self.model.prune(patches, prompt.keys, self._tensor(proprio)[None])
            return np.flatnonzero(keep_mask[0].cpu().numpy())

    def decode(
        self,
        patches: Tensor,
        retained_indices: NDArray[np.int64],
        prompt: TorchPrompt,
        proprio: NDArray[np.float32],
    ) -> NDArray[np.float32]:
        """Decode the retained tokens into float32 [chunk_size, action_dim] normalised actions."""
        with running("decoder"):
            indices = torch.tensor(retained_indices, device=self._device)
            hidden = self.model.decode(
                patches[:, indices], indices[None], prompt.tokens, self._tensor(proprio)[None]
            )
            actions: NDArray[np.float32] = self.model.action_head(hidden)[0].float().cpu().numpy()
            return actions

    def close(self) -> None:
        """Nothing to free: the model belongs to the caller."""

    # -- for comparisons, see `comparison.ReferenceEngine` -------------------------------------------

    def read_patches(self, patches: Tensor) -> NDArray[np.float32]:
        """Return visual tokens as float32 [N, D]."""
        return to_host(patches[0])

    def write_patches(self, values: NDArray[np.float32]) -> Tensor:
        """Return float32 [N, D] visual tokens as a handle."""
        return self._tensor(values)[None]

    def read_prompt(self, prompt: TorchPrompt) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return a prompt's tokens and keys, each float32 [n-1, D]."""
        return to_host(prompt.tokens[0]), to_host(prompt.keys[0])

    def score(
        self, patches: Tensor, prompt: TorchPrompt, proprio: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Return the pruner's scores, float32 [Q, N]."""
        with running("pruner"):
            return to_host(self.model.score(patches, prompt.keys, self._tensor(proprio)[None])[0])

    def _tensor(self, array: NDArray[np.float32]) -> Tensor:
        return torch.tensor(array, device=self._device, dtype=self._dtype)


def to_host(tensor: Tensor) -> NDArray[np.float32]:
    """Copy a tensor into a float32 array."""
    array: NDArray[np.float32] = tensor.float().cpu().numpy()
    return array.copy()


@contextmanager
def running(stage: str) -> Iterator[None]:
    """Run torch code of a stage without gradients; its errors become `EngineError`."""
    try:
        with torch.inference_mode():
            yield
    except (RuntimeError, IndexError) as e:
        raise EngineError(
            f"PyTorch, stage '{stage}'",
            got=str(e),
            expected="inputs that fit the model",
            fix="check that the observation and prompt belong to this policy",
        ) from e
