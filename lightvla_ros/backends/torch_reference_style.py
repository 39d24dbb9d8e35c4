"""The policy's stages with the work the published code does, wasted work included: what to compare with.

Same weights, same actions (spec §4.4, §11), nothing saved:

- every camera goes through every tower by itself, and each tower's last block runs for nothing (§2.1);
- the prompt is embedded anew for every frame, the action slots as real embeddings times zero (§3.2);
- the pruner looks at the zero rows too and scores in the precision of the weights (§4.1);
- retained tokens are cut out of the whole sequence by a boolean mask (§4.2);
- the last layer computes every row, all hidden states are kept, and `lm_head` turns every row into
  float32 logits nobody reads (§10, 19).

For `lightvla bench` only. The blocks and the `lm_head` that the published code runs for nothing are not
in our checkpoints; copies and random weights of the same sizes stand in for them.
"""

from __future__ import annotations

import copy

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from lightvla_ros.backends.torch_engine import running
from lightvla_ros.core.errors import EngineError
from lightvla_ros.model.decoder import rotary_angles
from lightvla_ros.model.lightvla import LightVla
from lightvla_ros.model.pruner import rms_normalize
from lightvla_ros.model.vision import VisionTower

# The id of the placeholders does not matter, their embeddings are multiplied by zero.
_PLACEHOLDER_ID = 1
_ALL_ROWS = slice(None)


class ReferenceStyleEngine:
    """`core.policy.Engine` over a `LightVla`, written as the published code is; patches are [1, N, D].

    Args:
        model: on the device and in the precision it shall run in; it is shared, not changed.

    Raises:
        EngineError: the model has a pruner that the published code has not.
    """

    def __init__(self, model: LightVla) -> None:
        if model.config.pruner.is_learned:
            raise EngineError(
                "reference-style engine",
                got=f"a model with {model.config.pruner.kind}",
                expected="task_queries, the only pruner there is published code for",
                fix="compare with backend 'torch'",
            )
        self.model = model.eval()
        weight = model.projector.fc1.weight
        self._device, self._dtype = weight.device, weight.dtype
        self._discarded_blocks = [copy.deepcopy(tower.blocks[-1]) for tower in model.vision_backbone.towers()]
        D, V = model.config.hidden_size, model.config.vocab_size
        self._lm_head = nn.Linear(D, V, bias=False, device=self._device, dtype=self._dtype)

    def encode_prompt(self, input_ids: NDArray[np.int64]) -> Tensor:
        """Only move int64 [n] ids to the device; they are embedded with every frame."""
        return torch.tensor(input_ids, device=self._device)

    def encode_images(self, pixel_values: NDArray[np.float32]) -> Tensor:
        """Turn float32 [1, C, S, S] pixels into [1, N, D] visual tokens, one tower and camera at a time."""
        with running("vision"):
            towers = self.model.vision_backbone.towers()
            views = torch.tensor(pixel_values, device=self._device, dtype=self._dtype).split(3, dim=1)
            features = []
            for camera in range(self.model.config.num_cameras):
                own = views[camera * len(towers) : (camera + 1) * len(towers)]
                passes = zip(towers, self._discarded_blocks, own, strict=True)
                features.append(torch.cat([_tower_features(*each) for each in passes], dim=-1))
            patches: Tensor = self.model.projector(torch.cat(features, dim=1))
            if self._device.type == "cuda":
                torch.cuda.current_stream(self._device).synchronize()  # a stage's latency is its own
            return patches

    def prune(self, patches: Tensor, prompt: Tensor, proprio: NDArray[np.float32]) -> NDArray[np.int64]:
        """Choose what to retain: int64 [K], ascending; scores in the precision of the weights."""
        with running("pruner"):
            D = patches.shape[-1]
            patch_keys = rms_normalize(patches).to(self._dtype)
            task_tokens = torch.cat([self._proprio_token(proprio), self._text(prompt)[:, 1:]], dim=1)
            task_keys = rms_normalize(task_tokens).to(self._dtype)
            queries = F.scaled_dot_product_attention(patch_keys, task_keys, task_keys)
            queries = rms_normalize(queries).to(self._dtype)
            score = queries @ patch_keys.transpose(1, 2) / D**0.5  # [1, N, N]
            return np.unique(score[0].argmax(-1).cpu().numpy())

    def decode(
        self,
        patches: Tensor,
        retained_indices: NDArray[np.int64],
        prompt: Tensor,
        proprio: NDArray[np.float32],
    ) -> NDArray[np.float32]:
        """Decode the retained tokens into float32 [chunk_size, action_dim] normalised actions."""
        with running("decoder"):
            x, positions = self._pruned_sequence(patches, retained_indices, prompt, proprio)
            hidden_states = self._hidden_states(x, positions)
            self._lm_head(hidden_states[-1]).float()
            # "▁" follows BOS, the retained tokens, proprio and the prompt without its BOS (spec §3.3).
            first = len(retained_indices) + len(prompt) + 1 + self.model.config.action_row_offset
            rows = hidden_states[-1][:, first : first + self.model.config.num_action_rows]
            actions: NDArray[np.float32] = self.model.action_head(rows)[0].float().cpu().numpy()
            return actions

    def close(self) -> None:
        """Nothing to free: the model belongs to the caller."""

    def _proprio_token(self, proprio: NDArray[np.float32]) -> Tensor:
        state = torch.tensor(proprio, device=self._device, dtype=self._dtype)[None]
        return self.model.proprio_projector(state)[:, None]

    def _text(self, prompt: Tensor) -> Tensor:
        """Embed BOS, prompt, "▁", the action slots as zeros, and </s>: [1, n + A + 2, D]."""
        config = self.model.config
        slots = prompt.new_full((config.num_action_rows,), _PLACEHOLDER_ID)
        ids = torch.cat(
            [prompt, prompt.new_tensor([config.action_prefix_id]), slots, prompt.new_tensor([config.stop_id])]
        )
        factors = torch.ones(len(ids), 1, device=self._device, dtype=self._dtype)
        factors[len(prompt) + 1 : -1] = 0
        return (self.model.language_model.model.embed_tokens(ids) * factors)[None]

    def _pruned_sequence(
        self,
        patches: Tensor,
        retained_indices: NDArray[np.int64],
        prompt: Tensor,
        proprio: NDArray[np.float32],
    ) -> tuple[Tensor, Tensor]:
        """Return the sequence [1, K + n + A + 3, D] in the reference's order and its position ids."""
        text = self._text(prompt)
        whole = torch.cat([text[:, :1], patches, self._proprio_token(proprio), text[:, 1:]], dim=1)
        keep_mask = torch.ones(whole.shape[1], dtype=torch.bool, device=self._device)
        keep_mask[1 : 1 + patches.shape[1]] = False
        keep_mask[1 + torch.tensor(retained_indices, device=self._device)] = True
        positions = torch.arange(whole.shape[1], device=self._device)
        return whole[:, keep_mask], positions[keep_mask][None]

    def _hidden_states(self, x: Tensor, positions: Tensor) -> list[Tensor]:
        decoder = self.model.language_model.model
        cos, sin = rotary_angles(self.model.config, positions, x.dtype)
        hidden_states = [x]
        for layer in decoder.layers:
            x = layer(x, cos, sin, None, _ALL_ROWS)
            hidden_states.append(x)
        hidden_states[-1] = decoder.norm(x)
        return hidden_states


def _tower_features(tower: VisionTower, discarded_block: nn.Module, image: Tensor) -> Tensor:
    """Encode one image [1, 3, S, S] to [1, P, C], running the block behind the features as well."""
    x = tower.patch_embed(image) + tower.pos_embed
    if tower.num_prefix_tokens:
        x = torch.cat([tower.cls_token, tower.reg_token, x], dim=1)
    for block in tower.blocks:
        x = block(x)
    discarded_block(x)
    return x[:, tower.num_prefix_tokens :]
