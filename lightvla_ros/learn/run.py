"""A training run: demonstrations in, model and batches out, checkpoints in the published layout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from lightvla_ros.core.errors import ConfigError
from lightvla_ros.learn.batches import Batch, BatchSource, action_statistics
from lightvla_ros.learn.demonstrations import DemonstrationMeta, Demonstrations, load_demonstrations
from lightvla_ros.learn.mini import BOS, make_mini_model, policy_section, vocabulary, write_tokenizer
from lightvla_ros.model import LightVla, load_checkpoint, save_checkpoint

_HELD_OUT_CHUNKS = 256


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Run:
    """What a training run works on.

    Attributes:
        meta: what the demonstrations share.
        vocab: token -> id.
        model: trained in place.
        source: training chunks.
        held_out: one batch from episodes that are not trained on.
    """

    meta: DemonstrationMeta
    vocab: Mapping[str, int]
    model: LightVla
    source: BatchSource
    held_out: Batch


def prepare(directory: Path, *, num_held_out: int, start: Path | None, seed: int) -> Run:
    """Load demonstrations, hold the last episodes out, and build or load the model.

    Raises:
        ConfigError: there are not enough episodes to hold some out.
        CheckpointError: `start` is not a usable checkpoint.
    """
    demonstrations = load_demonstrations(directory)
    num_episodes = len(demonstrations.episode_starts) - 1
    if not 0 < num_held_out < num_episodes:
        raise ConfigError(
            "--held-out", got=num_held_out, expected=f"1..{num_episodes - 1} of {num_episodes} episodes"
        )
    split = int(demonstrations.episode_starts[num_episodes - num_held_out])
    training, validation = _first(demonstrations, split), _rest(demonstrations, split)
    statistics = action_statistics(training)
    meta = demonstrations.meta
    vocab = vocabulary(meta.instructions)
    model = load_checkpoint(start) if start else make_mini_model(meta, len(vocab), {meta.world: statistics})
    statistics = model.statistics[meta.world]
    token_ids = [[vocab[BOS], *(vocab[word] for word in text.lower().split())] for text in meta.instructions]
    make_source = partial(
        BatchSource,
        statistics=statistics,
        token_ids=token_ids,
        chunk_size=model.config.chunk_size,
        grid_size=model.config.grid_size,
    )
    held_out = make_source(validation).sample(_HELD_OUT_CHUNKS, np.random.default_rng(seed))
    return Run(meta=meta, vocab=vocab, model=model.train(), source=make_source(training), held_out=held_out)


def save(run: Run, model: LightVla, directory: Path, training: Mapping[str, Any]) -> None:
    """Write a checkpoint directory that `lightvla export` and `load_policy` read."""
    extras = {"policy": policy_section(run.meta), "training": dict(training)}
    save_checkpoint(model, directory, extras=extras)
    write_tokenizer(directory / "tokenizer.json", run.vocab)


def _first(data: Demonstrations, split: int) -> Demonstrations:
    return _slice(data, slice(0, split), data.episode_starts[data.episode_starts <= split])


def _rest(data: Demonstrations, split: int) -> Demonstrations:
    return _slice(data, slice(split, None), data.episode_starts[data.episode_starts >= split] - split)


def _slice(data: Demonstrations, steps: slice, episode_starts: Any) -> Demonstrations:
    return replace(
        data,
        images=data.images[steps],
        proprio=data.proprio[steps],
        actions=data.actions[steps],
        instruction_index=data.instruction_index[steps],
        episode_starts=episode_starts,
    )
