"""What training minimises: the L1 of action chunks, and beside it, in an unpruned stage, pointing."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from lightvla_ros.learn.batches import Batch
from lightvla_ros.learn.noise import Noise
from lightvla_ros.learn.pointing import PointingHead
from lightvla_ros.learn.seeds import torch_generator
from lightvla_ros.model import LightVla


class Selection(NamedTuple):
    """How a training pass selects visual tokens.

    Attributes:
        prune: one token per query, else every visual token.
        noise: what is added to the scores.
        noise_scale: its factor at this step.
        reference_compatible: let the queries look at the padding of shorter prompts, as the reference
            does in training and never at test (spec §4.5).
    """

    prune: bool
    noise: Noise = Noise()
    noise_scale: float = 0.0
    reference_compatible: bool = False


class Losses(NamedTuple):
    """Scalars of one pass.

    Attributes:
        total: what is minimised.
        action_error: mean L1 of normalised actions.
        pointing: of the pointing task, 0 without one.
    """

    total: Tensor
    action_error: Tensor
    pointing: Tensor


class Objective(nn.Module):
    """The model and its losses as one module.

    Everything that has gradients is used in one forward pass, so that wrappers which synchronise gradients
    see all of it. The reference calls its action head past the wrapper, and each of its GPUs trains a head
    of its own (spec §10, 10).

    Args:
        model: trained.
        pointing: the second task's head; None trains on actions alone.
        pointing_weight: of the second task.
        bf16: run under bfloat16 autocast.
    """

    def __init__(
        self, model: LightVla, *, pointing: PointingHead | None, pointing_weight: float, bf16: bool
    ) -> None:
        super().__init__()
        self.model = model
        self.pointing = pointing
        self.pointing_weight = pointing_weight
        self.bf16 = bf16

    def forward(self, batch: Batch, selection: Selection, seed: tuple[int, ...]) -> Losses:
        """Run a batch; `seed` decides the noise."""
        device = batch.actions.device
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=self.bf16):
            predicted, visual_hidden = predict_for_training(
                self.model, batch, selection, seed, with_visual_hidden=self.pointing is not None
            )
            pointed = torch.zeros((), device=device)
            if self.pointing is not None and visual_hidden is not None:
                pointed = self.pointing.loss(visual_hidden, batch.shares)
        error = (predicted - batch.actions).abs().mean()
        return Losses(error + self.pointing_weight * pointed, error.detach(), pointed.detach())


def predict_for_training(
    model: LightVla,
    batch: Batch,
    selection: Selection,
    seed: tuple[int, ...] = (),
    *,
    with_visual_hidden: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Predict differentiably.

    Returns:
        normalised chunks float32 [B, chunk_size, A], and the decoder's rows [B, Q, D] of the visual tokens
        where asked for.
    """
    patches = model.encode_images(batch.pixel_values)
    prompt = model.embed_prompt(batch.input_ids)
    B, N, _ = patches.shape
    if selection.prune:
        generator = torch_generator(patches.device, *seed)
        noise = selection.noise.sample((B, model.num_queries, N), generator)
        indices, visual = model.select_for_training(
            patches,
            prompt,
            batch.proprio,
            batch.prompt_mask,
            noise_scale=selection.noise_scale,
            noise=noise,
            reference_compatible=selection.reference_compatible,
        )
    else:
        indices, visual = torch.arange(N, device=patches.device).expand(B, N), patches
    hidden = model.decode(
        visual,
        indices,
        prompt,
        batch.proprio,
        prompt_mask=batch.prompt_mask,
        every_row=with_visual_hidden,
    )
    if not with_visual_hidden:
        return model.action_head(hidden).float(), None
    return model.action_head(hidden[:, model.head_rows]).float(), hidden[:, -indices.shape[1] :]
