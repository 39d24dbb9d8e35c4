"""LightVLA, top to bottom: pixels, prompt and proprio in, one chunk of normalised actions out.

The order of the decoder's rows is our own, see `sequence.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lightvla_ros.core.normalize import ActionNormalizer, statistics_for
from lightvla_ros.model.config import ModelConfig, PrunerConfig
from lightvla_ros.model.decoder import LanguageModel
from lightvla_ros.model.heads import L1RegressionHead, ProprioProjector
from lightvla_ros.model.pruner import compact, make_pruner, rms_normalize
from lightvla_ros.model.sample import checked_sample
from lightvla_ros.model.sequence import in_reference_order, key_mask, padded_mask, position_ids
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
        self.pruner = make_pruner(config)

    def replace_pruner(self, pruner: PrunerConfig) -> None:
        """Prune by other queries from now on; learned ones start anew, all other weights stay.

        So the second stage of training gets its queries (docs/adr/0012).
        """
        self.config = replace(self.config, pruner=pruner)
        self.pruner = make_pruner(self.config).to(self.projector.fc1.weight)

    @property
    def num_queries(self) -> int:
        """Queries Q of the pruner: N made of the task tokens, or m learned ones."""
        return self.config.num_queries

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
        return tokens, _task_mask(prompt_mask)

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
        return self.pruner.keep_mask(self.score(patches, prompt_keys, proprio, prompt_mask))

    def score(
        self, patches: Tensor, prompt_keys: Tensor, proprio: Tensor, prompt_mask: Tensor | None = None
    ) -> Tensor:
        """Score every patch for every query, float32 [B, Q, N]; arguments as those of `prune`."""
        return self.pruner.score(*self._score_inputs(patches, prompt_keys, proprio, prompt_mask))

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
        x = self.embed_sequence(visual_tokens, prompt_tokens, proprio)
        positions = position_ids(self.config, visual_indices, prompt_tokens, prompt_mask)
        mask = key_mask(self.config, visual_tokens, prompt_tokens, visual_mask, prompt_mask)
        rows = _ALL_ROWS if every_row else self.head_rows
        return self.language_model.model(x, positions, mask, rows)

    def select_for_training(
        self,
        patches: Tensor,
        prompt_tokens: Tensor,
        proprio: Tensor,
        prompt_mask: Tensor | None,
        *,
        noise_scale: float,
        noise: Tensor,
        reference_compatible: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Choose one token per query, differentiably (spec §4.3); scores are float32 under autocast too.

        Args:
            patches: [B, N, D].
            prompt_tokens: [B, M, D] from `embed_prompt`.
            proprio: [B, P] normalised.
            prompt_mask: bool [B, M], False for padding; None when there is none.
            noise_scale: sigma of the noise added to the scores.
            noise: [B, Q, N].
            reference_compatible: let padding take part in the queries, as the published training does and
                its inference never (spec §4.5). It pads with id 32000, so pad with that as well.

        Returns:
            indices int64 [B, Q] of the chosen tokens, duplicates kept, and the tokens [B, Q, D] in the
            dtype of `patches`: forward the hard choice, backward the gradient of the softmax.
        """
        mask = None if reference_compatible else prompt_mask
        inputs = self._score_inputs(patches, rms_normalize(prompt_tokens), proprio, mask)
        with torch.autocast(patches.device.type, enabled=False):
            score = self.pruner.score(*inputs) + noise_scale * noise
            indices, tokens = self.pruner.choose_softly(score, patches.float())
        return indices, tokens.to(patches.dtype)

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
        pixel_values, input_ids, proprio = checked_sample(self.config, pixel_values, input_ids, proprio)
        weight = self.projector.fc1.weight
        pixel_values, proprio = pixel_values.to(weight.dtype), proprio.to(weight.dtype)
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
            last_hidden=in_reference_order(self.config, hidden[0], num_retained=len(indices)),
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

    def _score_inputs(
        self, patches: Tensor, prompt_keys: Tensor, proprio: Tensor, prompt_mask: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        if self.config.pruner.kind == "decoder_queries":
            patches = self.language_model.model.first_keys(patches)
        return patches, self.task_keys(prompt_keys, proprio), _task_mask(prompt_mask)

    def _special_tokens(self, batch_size: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return the embeddings of "▁", </s> and BOS, each [B, 1, D]."""
        table = self.language_model.model.embed_tokens.weight
        ids = (self.config.action_prefix_id, self.config.stop_id, self.config.bos_id)
        prefix, stop, bos = (table[i].expand(batch_size, 1, -1) for i in ids)
        return prefix, stop, bos

    def _promptless_task_tokens(self, proprio: Tensor) -> list[Tensor]:
        prefix, stop, _ = self._special_tokens(proprio.shape[0])
        return [self.proprio_projector(proprio)[:, None], prefix, stop]

    def embed_sequence(self, visual_tokens: Tensor, prompt_tokens: Tensor, proprio: Tensor) -> Tensor:
        """Lay out the decoder's rows [B, L, D] in this module's order, see `sequence.py`."""
        B, _, D = visual_tokens.shape
        prefix, stop, bos = self._special_tokens(B)
        slots = visual_tokens.new_zeros(B, self.config.num_action_rows, D)
        proprio_token = self.proprio_projector(proprio)[:, None]
        return torch.cat([prefix, slots, stop, bos, proprio_token, prompt_tokens, visual_tokens], dim=1)


def _task_mask(prompt_mask: Tensor | None) -> Tensor | None:
    """Mask of the task tokens, of which proprio, "▁" and </s> come before the prompt."""
    return None if prompt_mask is None else padded_mask(prompt_mask, front=3)
