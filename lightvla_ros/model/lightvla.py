"""LightVLA, top to bottom: pixels, prompt and proprio in, one chunk of normalised actions out.

The sequence the decoder sees differs from the reference's only in the order of its rows, which
bidirectional attention with explicit positions ignores. Ours puts what is static first:

    row       0     1..A        A+1   A+2  A+3      then n-1      then K
    content   "▁"   A zeros     </s>  BOS  proprio  prompt 1..    retained visual tokens
    position  N+1+n N+2+n+i     N+2+n+A 0  N+1      N+1+j         1 + original index

with A = chunk_size * action_dim, N visual tokens and n prompt ids including BOS (spec §3.3). The rows
the head reads are a fixed slice, and padding, where there is any, sits at the tail.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lightvla_ros.core.errors import SpecError
from lightvla_ros.core.normalize import ActionNormalizer, statistics_for
from lightvla_ros.model.config import ModelConfig
from lightvla_ros.model.decoder import LanguageModel
from lightvla_ros.model.heads import L1RegressionHead, ProprioProjector
from lightvla_ros.model.pruner import TokenPruner, compact, rms_normalize
from lightvla_ros.model.vision import Projector, VisionBackbone

_ALL_ROWS = slice(None)


class LightVlaOutput(NamedTuple):
    """What one forward pass of one sample shows.

    Attributes:
        keep_mask: bool [N], True where a visual token was retained.
        patches: [N, D] projected visual tokens.
        last_hidden: [K + n + 59, D] (for 8x7 chunks) hidden rows after the final norm, in the reference's
            order: BOS, retained tokens, proprio, prompt, "▁", action slots, </s>.
        action_hidden: [A, D] the rows the action head read.
        normalized_actions: [chunk_size, action_dim].
    """

    keep_mask: Tensor
    patches: Tensor
    last_hidden: Tensor
    action_hidden: Tensor
    normalized_actions: Tensor


class LightVla(nn.Module):
    """The policy network. Submodules carry the names of the published state dict (spec §6.2)."""

    def __init__(self, config: ModelConfig, statistics: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.config = config
        self.statistics = dict(statistics or {})
        self.vision_backbone = VisionBackbone(config)
        self.projector = Projector(config)
        self.language_model = LanguageModel(config)
        self.proprio_projector = ProprioProjector(config)
        self.action_head = L1RegressionHead(config)
        self.pruner = TokenPruner()

    # -- stages: what the engines run, one after the other ---------------------------------------

    def encode_images(self, pixel_values: Tensor) -> Tensor:
        """Turn [B, C, S, S] pixels into [B, N, D] visual tokens."""
        return self.projector(self.vision_backbone(pixel_values))

    def embed_prompt(self, input_ids: Tensor) -> Tensor:
        """Embed int64 [B, n] prompt ids without their BOS: [B, n-1, D]."""
        return self.language_model.model.embed_tokens(input_ids[:, 1:])

    def task_tokens(
        self, prompt_tokens: Tensor, proprio: Tensor, prompt_mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Return what the pruner's queries look at: [B, n+2, D] proprio, "▁", </s>, prompt, and their mask.

        The zero action rows are left out because they change nothing (spec §4.4); the prompt comes last
        so that its padding sits at the tail.
        """
        tokens = torch.cat([*self._promptless_task_tokens(proprio), prompt_tokens], dim=1)
        return tokens, _padded_mask(prompt_mask, front=3)

    def task_keys(self, prompt_keys: Tensor, proprio: Tensor) -> Tensor:
        """Complete cached prompt keys: [B, n-1, D] and proprio [B, P] -> float32 [B, n+2, D].

        Equals `rms_normalize` of `task_tokens`; the prompt's part is computed once per instruction.
        """
        keys = rms_normalize(torch.cat(self._promptless_task_tokens(proprio), dim=1))
        return torch.cat([keys, prompt_keys], dim=1)

    def prune(
        self, patches: Tensor, prompt_keys: Tensor, proprio: Tensor, prompt_mask: Tensor | None = None
    ) -> Tensor:
        """Choose what to retain: bool [B, N] (spec §4.1-4.2).

        Args:
            patches: [B, N, D].
            prompt_keys: float32 [B, M, D], `rms_normalize(embed_prompt(...))`, cacheable per instruction.
            proprio: [B, P] normalised.
            prompt_mask: bool [B, M], False for padding; None when there is none.
        """
        keys = self.task_keys(prompt_keys, proprio)
        return self.pruner.keep_mask(self.pruner.score(patches, keys, _padded_mask(prompt_mask, front=3)))

    def decode(
        self,
        visual_tokens: Tensor,
        visual_indices: Tensor,
        prompt_tokens: Tensor,
        proprio: Tensor,
        *,
        visual_mask: Tensor | None = None,
        prompt_mask: Tensor | None = None,
        every_row: bool = False,
    ) -> Tensor:
        """Run the decoder.

        Args:
            visual_tokens: [B, K, D] retained tokens.
            visual_indices: int64 [B, K] their indices before pruning.
            prompt_tokens: [B, M, D] from `embed_prompt`.
            proprio: [B, P] normalised.
            visual_mask: bool [B, K], False for padding; None when there is none.
            prompt_mask: bool [B, M], likewise.
            every_row: return all rows in this module's order instead of the head's.

        Returns:
            [B, A, D] hidden rows for the action head, or [B, L, D].
        """
        x = self._embed_sequence(visual_tokens, prompt_tokens, proprio)
        positions = self._positions(visual_indices, prompt_tokens, prompt_mask)
        key_mask = None
        if visual_mask is not None or prompt_mask is not None:
            fixed = self.config.num_action_rows + 4
            key_mask = torch.cat(
                [
                    _mask_or_ones(prompt_mask, prompt_tokens, front=fixed),
                    _mask_or_ones(visual_mask, visual_tokens),
                ],
                dim=1,
            )
        rows = _ALL_ROWS if every_row else self.head_rows
        return self.language_model.model(x, positions, key_mask, rows)

    # -- whole passes -----------------------------------------------------------------------------

    def forward(self, pixel_values: Tensor, input_ids: Tensor, proprio: Tensor) -> LightVlaOutput:
        """Run one sample and show its insides, for parity and inspection.

        Args:
            pixel_values: [1, C, S, S] (LIBERO: [1, 12, 224, 224]).
            input_ids: int64 [1, n], BOS first; a trailing action prefix ("▁") may be there or not.
            proprio: [P] or [1, P], normalised to [-1, 1].

        Raises:
            SpecError: a shape does not fit the model, or the batch is not one.
        """
        pixel_values, input_ids, proprio = self._checked(pixel_values, input_ids, proprio)
        patches = self.encode_images(pixel_values)
        prompt_tokens = self.embed_prompt(input_ids)
        keep_mask = self.prune(patches, rms_normalize(prompt_tokens), proprio)
        indices = keep_mask[0].nonzero()[:, 0]
        hidden = self.decode(
            patches[:, indices], indices[None], prompt_tokens, proprio, every_row=True
        )  # [1, L, D]
        action_hidden = hidden[:, self.head_rows]
        return LightVlaOutput(
            keep_mask=keep_mask[0],
            patches=patches[0],
            last_hidden=self._in_reference_order(hidden[0], num_retained=len(indices)),
            action_hidden=action_hidden[0],
            normalized_actions=self.action_head(action_hidden)[0],
        )

    def predict(
        self, pixel_values: Tensor, input_ids: Tensor, proprio: Tensor, prompt_mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Predict a batch; each sample keeps its own tokens, padded to the longest (spec §10, 8).

        Args:
            pixel_values: [B, C, S, S].
            input_ids: int64 [B, n] without trailing action prefix, right-padded where shorter.
            proprio: [B, P] normalised.
            prompt_mask: bool [B, n-1], False where `input_ids[:, 1:]` is padding; None when none is.

        Returns:
            normalised actions [B, chunk_size, action_dim] and the keep mask bool [B, N].
        """
        patches = self.encode_images(pixel_values)
        prompt_tokens = self.embed_prompt(input_ids)
        keep_mask = self.prune(patches, rms_normalize(prompt_tokens), proprio, prompt_mask)
        tokens, indices, visual_mask = compact(patches, self.pruner.retained(keep_mask))
        hidden = self.decode(
            tokens, indices, prompt_tokens, proprio, visual_mask=visual_mask, prompt_mask=prompt_mask
        )
        return self.action_head(hidden), keep_mask

    def unnormalize(self, normalized_actions: Tensor, key: str | None = None) -> NDArray[np.float64]:
        """Map normalised actions to robot units with the statistics `key` (spec §3.9).

        Raises:
            ConfigError: the key is unknown; the message lists the known ones.
        """
        _, entry = statistics_for(self.statistics, key)
        action = entry["action"]
        normalizer = ActionNormalizer(action["q01"], action["q99"], action.get("mask"))
        return normalizer.unnormalize(normalized_actions.detach().float().cpu().numpy())

    # -- sequence ---------------------------------------------------------------------------------

    @property
    def head_rows(self) -> slice:
        """Rows of the decoder's sequence that the action head reads."""
        first = self.config.action_row_offset
        return slice(first, first + self.config.num_action_rows)

    def _special_tokens(self, batch_size: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return the embeddings of "▁", </s> and BOS, each [B, 1, D]."""
        table = self.language_model.model.embed_tokens.weight
        ids = (self.config.action_prefix_id, self.config.stop_id, self.config.bos_id)
        prefix, stop, bos = (table[i].expand(batch_size, 1, -1) for i in ids)
        return prefix, stop, bos

    def _promptless_task_tokens(self, proprio: Tensor) -> list[Tensor]:
        prefix, stop, _ = self._special_tokens(proprio.shape[0])
        return [self.proprio_projector(proprio)[:, None], prefix, stop]

    def _embed_sequence(self, visual_tokens: Tensor, prompt_tokens: Tensor, proprio: Tensor) -> Tensor:
        B, _, D = visual_tokens.shape
        prefix, stop, bos = self._special_tokens(B)
        slots = visual_tokens.new_zeros(B, self.config.num_action_rows, D)
        proprio_token = self.proprio_projector(proprio)[:, None]
        return torch.cat([prefix, slots, stop, bos, proprio_token, prompt_tokens, visual_tokens], dim=1)

    def _positions(self, visual_indices: Tensor, prompt_tokens: Tensor, prompt_mask: Tensor | None) -> Tensor:
        """Position ids int64 [B, L]: those of the unpruned, unpadded sequence (spec §3.5)."""
        config, device = self.config, visual_indices.device
        B, M, N = visual_indices.shape[0], prompt_tokens.shape[1], config.num_patches
        lengths = (
            torch.full((B, 1), M, device=device) if prompt_mask is None else prompt_mask.sum(1, keepdim=True)
        )
        # "▁", the action slots and </s> follow the prompt, so they shift with its length n = M + 1.
        after = N + 2 + lengths + torch.arange(config.num_action_rows + 2, device=device)
        # BOS is at 0 and proprio at N + 1; computed, because constants cannot enter a CUDA graph.
        bos_proprio = (torch.arange(2, device=device) * (N + 1)).expand(B, 2)
        prompt = (N + 2 + torch.arange(M, device=device)).expand(B, M)
        return torch.cat([after, bos_proprio, prompt, visual_indices + 1], dim=1)

    def _in_reference_order(self, hidden: Tensor, num_retained: int) -> Tensor:
        """Reorder one sample's rows [L, D] to BOS, visual, proprio, prompt, "▁", slots, </s>."""
        A = self.config.num_action_rows
        num_prompt = hidden.shape[0] - num_retained - (A + 4)
        tail, bos, proprio, prompt, visual = hidden.split([A + 2, 1, 1, num_prompt, num_retained])
        return torch.cat([bos, visual, proprio, prompt, tail])

    def _checked(
        self, pixel_values: Tensor, input_ids: Tensor, proprio: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        config = self.config
        channels = 3 * len(config.towers) * config.num_cameras
        expected = (1, channels, config.image_size, config.image_size)
        if tuple(pixel_values.shape) != expected:
            raise SpecError(
                "pixel_values", got=tuple(pixel_values.shape), expected=str(expected), fix="pass one sample"
            )
        if input_ids.ndim != 2 or input_ids.shape[0] != 1 or input_ids.shape[1] < 2:
            raise SpecError(
                "input_ids", got=tuple(input_ids.shape), expected="(1, n) with n >= 2", fix="pass one prompt"
            )
        if proprio.numel() != config.proprio_dim:
            raise SpecError(
                "proprio",
                got=tuple(proprio.shape),
                expected=f"{config.proprio_dim} numbers",
                fix="pass one state",
            )
        if int(input_ids[0, -1]) == config.action_prefix_id:
            input_ids = input_ids[:, :-1]  # the sequence always appends it itself
        dtype = self.projector.fc1.weight.dtype
        return pixel_values.to(dtype), input_ids, proprio.reshape(1, -1).to(dtype)


def _padded_mask(mask: Tensor | None, front: int) -> Tensor | None:
    """Prepend `front` real rows to a bool [B, M] mask."""
    return None if mask is None else torch.cat([mask.new_ones(mask.shape[0], front), mask], dim=1)


def _mask_or_ones(mask: Tensor | None, tokens: Tensor, front: int = 0) -> Tensor:
    if mask is None:
        mask = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
    return torch.cat([mask.new_ones(mask.shape[0], front), mask], dim=1) if front else mask
