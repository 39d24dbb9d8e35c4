"""What a run learns from: episodes split in two, prompts, statistics, and the model's sizes that follow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from lightvla_ros.backends.tokenizer import TOKENIZER_NAME, load_encoder, read_tokenizer
from lightvla_ros.core.errors import CheckpointError, ConfigError
from lightvla_ros.core.policy_config import PolicyConfig, make_preprocessor
from lightvla_ros.core.prompt import PromptEncoder
from lightvla_ros.learn.batches import Batch, BatchSource, action_statistics
from lightvla_ros.learn.demonstrations import DemonstrationMeta, load_demonstrations
from lightvla_ros.learn.mini import PATCHES_PER_SIDE, mini_config, policy_section, tokenizer_json, vocabulary
from lightvla_ros.learn.recipes import TrainingConfig
from lightvla_ros.model.checkpoint import read_statistics
from lightvla_ros.model.config import ModelConfig, read_json
from lightvla_ros.model.policy_config import policy_config_for
from lightvla_ros.sim.worlds import TABLETOP

_HELD_OUT_CHUNKS = 256
# What the published models pad with; only a reference-compatible training looks at it.
_LLAMA_PAD_ID = 32000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainingData:
    """Demonstrations as a model of these sizes learns from them.

    Attributes:
        source: training chunks.
        held_out: one batch of chunks from episodes that are not trained on.
        sizes: of the model: the start's, or the mini model's for these demonstrations.
        statistics: `dataset_statistics.json` of the model.
        policy: "policy" section of `lightvla.json`.
        tokenizer: contents of `tokenizer.json`.
        can_point: whether there are labels for the pointing task.
    """

    source: BatchSource
    held_out: Batch
    sizes: ModelConfig
    statistics: Mapping[str, Any]
    policy: Mapping[str, Any]
    tokenizer: str
    can_point: bool


def load_data(config: TrainingConfig) -> TrainingData:
    """Load the demonstrations and hold some episodes out.

    Raises:
        ConfigError: there are not enough episodes to hold some out, all are too short, or they do not fit
            the start.
        SpecError: an episode is bad; names it and the field.
        CheckpointError: `start` is not a usable checkpoint.
    """
    demonstrations = load_demonstrations(*config.demonstrations, mapping=config.mapping)
    training, held_out = _split(len(demonstrations.episode_starts) - 1, config.num_held_out)
    meta = demonstrations.meta
    start = Path(config.start) if config.start else None
    sizes, tokenizer, section = _of_start(start) if start else _of_mini(meta)
    kept = read_statistics(start).get(meta.world) if start else None
    statistics = {meta.world: kept or action_statistics(demonstrations)}
    section = {
        **section,
        "camera_names": list(meta.cameras),
        "action_names": list(meta.action_names),
        "step_period_s": meta.step_period_s,
    }
    _check_fits(meta, sizes)
    policy = policy_config_for(sizes, statistics, overrides=section)
    make_source = partial(
        BatchSource,
        demonstrations,
        statistics=statistics[meta.world],
        token_ids=_prompts(meta, sizes, tokenizer, policy),
        chunk_size=sizes.chunk_size,
        grid_size=sizes.grid_size,
        preprocess=make_preprocessor(policy),
        pad_id=_LLAMA_PAD_ID if sizes.vocab_size > _LLAMA_PAD_ID else 0,
    )
    rng = np.random.default_rng(config.settings.seed)
    return TrainingData(
        source=make_source(episodes=training),
        held_out=make_source(episodes=held_out).sample(_HELD_OUT_CHUNKS, rng),
        sizes=sizes,
        statistics=statistics,
        policy=section,
        tokenizer=tokenizer,
        # Objects can be told by the colour that the instruction names in this world alone.
        can_point=meta.world == TABLETOP,
    )


def _of_mini(meta: DemonstrationMeta) -> tuple[ModelConfig, str, dict[str, Any]]:
    """Return sizes, tokenizer and policy section of a fresh mini model."""
    if meta.image_size % PATCHES_PER_SIDE:
        raise ConfigError(
            "image_size of the demonstrations",
            got=meta.image_size,
            expected=f"a multiple of {PATCHES_PER_SIDE}, the mini model's patches a side",
            fix="collect or map images of another size",
        )
    vocab = vocabulary(meta.instructions)
    return mini_config(meta, len(vocab)), tokenizer_json(vocab), policy_section(meta)


def _of_start(start: Path) -> tuple[ModelConfig, str, dict[str, Any]]:
    """Likewise, of a checkpoint."""
    sizes = ModelConfig.from_directory(start)
    tokenizer = read_tokenizer(start)
    if tokenizer is None:
        raise CheckpointError(
            f"tokenizer in {start}", got="none", expected=TOKENIZER_NAME, fix="fetch it with the weights"
        )
    return sizes, tokenizer, read_json(start / "lightvla.json", optional=True).get("policy", {})


def _check_fits(meta: DemonstrationMeta, sizes: ModelConfig) -> None:
    pairs = {
        "cameras": (len(meta.cameras), sizes.num_cameras),
        "numbers per action": (len(meta.action_names), sizes.action_dim),
        "numbers of state": (meta.proprio_dim, sizes.proprio_dim),
    }
    for name, (got, expected) in pairs.items():
        if got != expected:
            raise ConfigError(
                f"{name} of the demonstrations",
                got=got,
                expected=f"{expected}, as the model to start from",
                fix="start from another checkpoint, or record what it needs",
            )


def _prompts(
    meta: DemonstrationMeta, sizes: ModelConfig, tokenizer: str, policy: PolicyConfig
) -> list[list[int]]:
    with TemporaryDirectory() as folder:
        path = Path(folder) / TOKENIZER_NAME
        path.write_text(tokenizer, encoding="utf-8")
        encode = load_encoder(path, sizes)
    encoder = PromptEncoder(
        encode=encode,
        template=policy.prompt_template,
        max_tokens=policy.max_prompt_tokens,
        action_prefix_id=sizes.action_prefix_id,
    )
    return [encoder.encode(text).tolist() for text in meta.instructions]


def _split(num_episodes: int, num_held_out: int) -> tuple[list[int], list[int]]:
    """Choose the episodes to train on and, evenly spread, those to hold out."""
    if not 0 < num_held_out < num_episodes:
        raise ConfigError(
            "--held-out", got=num_held_out, expected=f"1..{num_episodes - 1} of {num_episodes} episodes"
        )
    held_out = {(2 * i + 1) * num_episodes // (2 * num_held_out) for i in range(num_held_out)}
    return [i for i in range(num_episodes) if i not in held_out], sorted(held_out)
