"""Turn demonstrations into training batches: observations, prompts and normalised action chunks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightvla_ros.core.errors import ConfigError
from lightvla_ros.core.normalize import ActionNormalizer, ProprioNormalizer
from lightvla_ros.core.preprocess import ImagePreprocessor, center_crop
from lightvla_ros.learn.demonstrations import Demonstrations
from lightvla_ros.learn.pointing import colour_shares, named_colour

# A dimension the expert hardly moves would otherwise have its noise blown up to [-1, 1].
_MIN_HALF_RANGE = 0.3
# Weight of a chunk that begins at rest, against 1 + this for one at full speed or that moves the gripper.
# Most steps of an episode are slow corrections that proprio alone explains; the others show where to look.
_REST_WEIGHT = 0.3


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Batch:
    """One training batch.

    Attributes:
        pixel_values: float32 [B, C, S, S].
        input_ids: int64 [B, n], BOS first, right-padded with 0.
        prompt_mask: bool [B, n-1], True where `input_ids[:, 1:]` is real.
        proprio: float32 [B, P], normalised.
        actions: float32 [B, chunk_size, A], normalised to [-1, 1], gripper 0 closed / 1 open.
        shares: float32 [B, N], how much of each visual token shows the named object.
    """

    pixel_values: Tensor
    input_ids: Tensor
    prompt_mask: Tensor
    proprio: Tensor
    actions: Tensor
    shares: Tensor

    def to(self, device: torch.device) -> Batch:
        """Return the batch on a device."""
        return Batch(**{f.name: getattr(self, f.name).to(device, non_blocking=True) for f in fields(self)})

    def split(self, size: int) -> Iterator[Batch]:
        """Yield the batch in parts of at most `size` chunks."""
        parts = zip(*(getattr(self, f.name).split(size) for f in fields(self)), strict=True)
        names = [f.name for f in fields(self)]
        return (Batch(**dict(zip(names, part, strict=True))) for part in parts)


def action_statistics(demonstrations: Demonstrations) -> dict[str, Any]:
    """Compute the statistics entry of spec §6.4 that the policy needs: 1 % and 99 % quantiles."""
    low, high = np.quantile(demonstrations.actions.astype(np.float64), [0.01, 0.99], axis=0)
    center, half = (high + low) / 2, np.maximum((high - low) / 2, _MIN_HALF_RANGE)
    mask = np.ones(len(low), dtype=bool)
    mask[-1] = False  # the gripper is not normalised
    state_low, state_high = np.quantile(demonstrations.proprio.astype(np.float64), [0.01, 0.99], axis=0)
    return {
        "action": {"q01": (center - half).tolist(), "q99": (center + half).tolist(), "mask": mask.tolist()},
        "proprio": {"q01": state_low.tolist(), "q99": state_high.tolist()},
        "num_transitions": len(demonstrations.actions),
        "num_trajectories": len(demonstrations.episode_starts) - 1,
    }


def chunk_starts(
    episode_starts: NDArray[np.int64], chunk_size: int, episodes: Sequence[int] | None = None
) -> NDArray[np.int64]:
    """Return every step a whole chunk can start at, not an episode's last `chunk_size - 1` (spec §7.2)."""
    chosen = range(len(episode_starts) - 1) if episodes is None else episodes
    spans = [(episode_starts[episode], episode_starts[episode + 1]) for episode in chosen]
    return np.concatenate([np.arange(begin, max(begin, end - chunk_size + 1)) for begin, end in spans])


def _probabilities(chunks: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return how often to draw each chunk [N, chunk_size, A], float64 [N]: motion and grasps before rest."""
    speed = np.abs(chunks[:, 0, :2]).max(axis=1).astype(np.float64)
    grips = np.ptp(chunks[:, :, -1], axis=1) > 0.5
    weights = _REST_WEIGHT + speed / max(speed.max(), np.finfo(np.float64).tiny) + grips
    return weights / weights.sum()


class BatchSource:
    """Draw batches from demonstrations.

    Args:
        demonstrations: in memory.
        statistics: entry of `action_statistics`.
        token_ids: one prompt per instruction of the meta, BOS first.
        chunk_size: actions per chunk.
        grid_size: visual tokens per side of an image.
        preprocess: how the policy sees its cameras; None for the mini policy's way, at the stored size.
        pad_id: what shorter prompts end with.
        episodes: to draw from; None for all.

    Raises:
        ConfigError: none of the episodes is as long as a chunk.
    """

    def __init__(
        self,
        demonstrations: Demonstrations,
        *,
        statistics: Mapping[str, Any],
        token_ids: Sequence[Sequence[int]],
        chunk_size: int,
        grid_size: int,
        preprocess: ImagePreprocessor | None = None,
        pad_id: int = 0,
        episodes: Sequence[int] | None = None,
    ) -> None:
        self._demonstrations = demonstrations
        self._grid_size = grid_size
        self._starts = chunk_starts(demonstrations.episode_starts, chunk_size, episodes)
        self._steps = np.arange(chunk_size)
        if not len(self._starts):
            raise ConfigError(
                "demonstrations",
                got=f"no episode of {chunk_size} steps",
                expected="some to train on and some to hold out",
                fix="record longer episodes, or hold out more of them (--held-out)",
            )
        self._preprocess = preprocess or ImagePreprocessor(
            image_size=demonstrations.meta.image_size, normalizations=("siglip",), jpeg=False
        )
        action, proprio = statistics["action"], statistics["proprio"]
        self._action_normalizer = ActionNormalizer(action["q01"], action["q99"], action["mask"])
        self._proprio_normalizer = ProprioNormalizer(proprio["q01"], proprio["q99"])
        longest = max(len(ids) for ids in token_ids)
        chunks = demonstrations.actions[self._starts[:, None] + self._steps]
        self._cumulative = np.cumsum(_probabilities(chunks))
        self._input_ids = np.array(
            [[*ids, *[pad_id] * (longest - len(ids))] for ids in token_ids], dtype=np.int64
        )
        self._lengths = np.array([len(ids) for ids in token_ids])

    def __len__(self) -> int:
        """Number of chunks that can be drawn."""
        return len(self._starts)

    def draw(self, batch_size: int, rng: np.random.Generator) -> Batch:
        """Draw a batch, fast motion and grasps more often than slow corrections."""
        drawn = np.searchsorted(self._cumulative, rng.random(batch_size) * self._cumulative[-1], side="right")
        return self.batch(np.sort(self._starts[drawn]))

    def sample(self, size: int, rng: np.random.Generator) -> Batch:
        """Draw one batch of distinct chunks."""
        return self.batch(rng.choice(self._starts, size=min(size, len(self._starts)), replace=False))

    def batch(self, starts: NDArray[np.int64]) -> Batch:
        """Build the batch of the chunks that begin at these steps."""
        data = self._demonstrations
        prompts = data.instruction_index[starts]
        columns = np.arange(1, self._input_ids.shape[1])
        actions = self._action_normalizer.normalize(data.actions[starts[:, None] + self._steps])
        return Batch(
            pixel_values=torch.from_numpy(
                np.concatenate([self._preprocess(list(data.images[i])) for i in starts])
            ),
            input_ids=torch.from_numpy(self._input_ids[prompts]),
            prompt_mask=torch.from_numpy(columns < self._lengths[prompts][:, None]),
            proprio=torch.from_numpy(
                np.stack(
                    [self._proprio_normalizer.normalize(p) for p in data.proprio[starts].astype(np.float64)]
                )
            ),
            actions=torch.from_numpy(actions.astype(np.float32)),
            shares=torch.from_numpy(np.stack([self._shares(i) for i in starts])),
        )

    def _shares(self, step: int) -> NDArray[np.float32]:
        data = self._demonstrations
        colour = named_colour(data.meta.instructions[data.instruction_index[step]])
        images = data.images[step]
        if self._preprocess.center_crop:
            images = [center_crop(image) for image in images]
        return np.concatenate([colour_shares(image, colour, self._grid_size) for image in images])
