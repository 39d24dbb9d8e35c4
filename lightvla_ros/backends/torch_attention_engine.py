"""Training-free pruning inside the decoder, which LightVLA is compared with: keep what the text attends to.

After FastV (arXiv 2403.06764): two layers see every visual token, then the tokens that got the most
attention in the second one stay. Averaged over heads, and of the prompt's rows the largest, as in an
abandoned experiment of LightVLA's authors (spec §5).
"""

from __future__ import annotations

from typing import NamedTuple, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightvla_ros.backends.torch_engine import TorchEngine, TorchPrompt, running
from lightvla_ros.core.errors import ConfigError, EngineError
from lightvla_ros.model.decoder import DecoderLayer, rotary_angles
from lightvla_ros.model.lightvla import LightVla
from lightvla_ros.model.sequence import position_ids

UNPRUNED_LAYERS = 2
_ALL_ROWS = slice(None)


class _Halfway(NamedTuple):
    """Rows after the first layers, [1, L, D], and their rotary angles [1, 1, L, head_dim]."""

    x: Tensor
    cos: Tensor
    sin: Tensor


class TorchAttentionEngine(TorchEngine):
    """`core.policy.Engine` that prunes by attention; its `decode` follows the `prune` of the same frame.

    Args:
        model: a network with more than two decoder layers.
        count: visual tokens to retain.

    Raises:
        ConfigError: `count` is none of 1 to N, or the decoder too shallow.
    """

    def __init__(self, model: LightVla, count: int) -> None:
        super().__init__(model)
        config = model.config
        if not 1 <= count <= config.num_patches or config.num_layers <= UNPRUNED_LAYERS:
            raise ConfigError(
                "pruning by attention",
                got=f"{count} of {config.num_patches} tokens, {config.num_layers} layers",
                expected=f"1 to {config.num_patches} tokens, more than {UNPRUNED_LAYERS} layers",
                fix="choose another count, or a deeper model",
            )
        self._count = count
        self._halfway: _Halfway | None = None

    def prune(self, patches: Tensor, prompt: TorchPrompt, proprio: NDArray[np.float32]) -> NDArray[np.int64]:
        """Run the first layers on every token; return the most attended ones, int64 [K], ascending."""
        with running("pruner"):
            model, config = self.model, self.model.config
            decoder = model.language_model.model
            N = config.num_patches
            indices = torch.arange(N, device=patches.device)[None]
            x = model.embed_sequence(patches, prompt.tokens, self._tensor(proprio)[None])
            positions = position_ids(config, indices, prompt.tokens, None)
            cos, sin = rotary_angles(config, positions, x.dtype)
            layers = [cast(DecoderLayer, layer) for layer in decoder.layers[:UNPRUNED_LAYERS]]
            for layer in layers[:-1]:
                x = layer(x, cos, sin, None, _ALL_ROWS)
            text = slice(x.shape[1] - N - prompt.tokens.shape[1], x.shape[1] - N)
            weights = layers[-1].self_attn.weights(layers[-1].input_layernorm(x), cos, sin, text)
            attention = weights[0, :, :, -N:].mean(0).amax(0)  # [N]
            x = layers[-1](x, cos, sin, None, _ALL_ROWS)
            self._halfway = _Halfway(x, cos, sin)
            retained: NDArray[np.int64] = attention.topk(self._count).indices.sort().values.cpu().numpy()
            return retained

    def decode(
        self,
        patches: Tensor,
        retained_indices: NDArray[np.int64],
        prompt: TorchPrompt,
        proprio: NDArray[np.float32],
    ) -> NDArray[np.float32]:
        """Run the other layers on what was retained: float32 [chunk_size, action_dim], normalised."""
        with running("decoder"):
            if self._halfway is None:
                raise EngineError(
                    "pruning by attention",
                    got="decode before prune",
                    expected="both once per frame, in the order prune, decode",
                    fix="call `prune` on the frame's patches first",
                )
            model, decoder = self.model, self.model.language_model.model
            (x, cos, sin), self._halfway = self._halfway, None
            first_visual = x.shape[1] - model.config.num_patches
            retained = torch.tensor(retained_indices, device=x.device) + first_visual
            rows = torch.cat([torch.arange(first_visual, device=x.device), retained])
            x, cos, sin = x[:, rows], cos[:, :, rows], sin[:, :, rows]
            for layer in decoder.layers[UNPRUNED_LAYERS:-1]:
                x = layer(x, cos, sin, None, _ALL_ROWS)
            hidden = decoder.norm(decoder.layers[-1](x, cos, sin, None, model.head_rows))
            actions: NDArray[np.float32] = model.action_head(hidden)[0].float().cpu().numpy()
            return actions
