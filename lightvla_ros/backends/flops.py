"""Floating point operations and bytes of one chunk, by stage, as functions of how many tokens are retained.

Of operations only matrix products are counted, a multiply-add as two; norms, softmax and rotary angles are
below 0.1 %. Of bytes, each weight is counted once and what enters and leaves a stage once: intermediate
results stay in the caches at best, so this is a lower bound.
"""

from __future__ import annotations

from typing import NamedTuple

from lightvla_ros.model.config import ModelConfig, VisionTowerConfig


class StageFlops(NamedTuple):
    """Operations of each stage of an engine."""

    vision: int
    pruner: int
    decoder: int


def stage_flops(
    config: ModelConfig, retained: int, prompt_tokens: int, *, reference: bool = False
) -> StageFlops:
    """Count the operations of one chunk.

    Args:
        config: sizes of the model.
        retained: visual tokens K the decoder sees.
        prompt_tokens: prompt ids n, BOS included.
        reference: count what the published code computes: the last block of each vision tower, the zero
            rows in the pruner, `lm_head`, and every row of the last decoder layer. None of it is used.
            Learned queries, which it does not have, count the same either way.
    """
    D, A = config.hidden_size, config.num_action_rows
    sequence = retained + prompt_tokens + A + 3  # BOS, proprio, "▁" and </s>; the prompt's BOS is among them
    task_tokens = prompt_tokens + 2 + (A if reference else 0)
    return StageFlops(
        vision=_vision(config, all_blocks=reference),
        pruner=_pruner(config, task_tokens),
        decoder=_decoder(config, sequence, last_rows=sequence if reference else A)
        + (_product(sequence, D, config.vocab_size) if reference else 0),
    )


class StageBytes(NamedTuple):
    """Bytes each stage of an engine has to move at least."""

    vision: int
    pruner: int
    decoder: int


def stage_bytes(
    config: ModelConfig, retained: int, prompt_tokens: int, *, bytes_per_number: int
) -> StageBytes:
    """Count the bytes one chunk moves at least, in the exact shortcut form (spec §11).

    Args:
        config: sizes of the model.
        retained: visual tokens K the decoder sees.
        prompt_tokens: prompt ids n, BOS included.
        bytes_per_number: 4 for float32, 2 for the half precisions.
    """
    N, D = config.num_patches, config.hidden_size
    pixels = 3 * len(config.towers) * config.num_cameras * config.image_size**2
    weights = stage_weights(config)
    numbers = StageBytes(
        vision=weights.vision + pixels + N * D,
        pruner=weights.pruner + N * D + (0 if config.pruner.is_learned else (prompt_tokens + 2) * D),
        decoder=weights.decoder + (retained + prompt_tokens) * D,
    )
    return StageBytes(*(count * bytes_per_number for count in numbers))


class StageWeights(NamedTuple):
    """Parameters each stage reads; the proprio projector belongs to two of them."""

    vision: int
    pruner: int
    decoder: int


def stage_weights(config: ModelConfig) -> StageWeights:
    """Count the parameters of each stage; the embedding table is read by row, and not counted."""
    D, V, P, A = config.hidden_size, config.vision_dim, config.proprio_dim, config.action_dim
    projector = _linear(V, 4 * V) + _linear(4 * V, D) + _linear(D, D)
    proprio = _linear(P, D) + _linear(D, D)
    layer = 4 * D * D + 3 * D * config.intermediate_size + 2 * D
    head = 2 * A * D + _linear(A * D, D) + 2 * (2 * D + _linear(D, D)) + 2 * D + _linear(D, A)
    return StageWeights(
        vision=sum(_tower_weights(config, tower) for tower in config.towers.values()) + projector,
        pruner=_pruner_weights(config, proprio),
        decoder=config.num_layers * layer + D + proprio + head,
    )


def _pruner_weights(config: ModelConfig, proprio: int) -> int:
    D = config.hidden_size
    if not config.pruner.is_learned:
        return proprio
    return config.num_queries * D + (D * D + D if config.pruner.kind == "decoder_queries" else 0)


def _tower_weights(config: ModelConfig, tower: VisionTowerConfig) -> int:
    C, M = tower.embed_dim, tower.mlp_dim
    block = _linear(C, 3 * C) + _linear(C, C) + _linear(C, M) + _linear(M, C) + 4 * C
    block += 2 * C if tower.layer_scale else 0
    patches = _linear(3 * config.patch_size**2, C) + config.grid_size**2 * C
    return patches + tower.num_prefix_tokens * C + (tower.depth - 1) * block


def _linear(inner: int, columns: int) -> int:
    return (inner + 1) * columns


def _vision(config: ModelConfig, *, all_blocks: bool) -> int:
    N, V, D = config.num_patches, config.vision_dim, config.hidden_size
    towers = sum(_tower(config, tower, all_blocks=all_blocks) for tower in config.towers.values())
    projector = _product(N, V, 4 * V) + _product(N, 4 * V, D) + _product(N, D, D)
    return config.num_cameras * towers + projector


def _tower(config: ModelConfig, tower: VisionTowerConfig, *, all_blocks: bool) -> int:
    patches, C = config.grid_size**2, tower.embed_dim
    tokens = patches + tower.num_prefix_tokens
    block = _product(tokens, C, 4 * C) + 2 * _product(tokens, C, tower.mlp_dim) + 4 * tokens * tokens * C
    return _product(patches, 3 * config.patch_size**2, C) + (tower.depth - (not all_blocks)) * block


def _pruner(config: ModelConfig, task_tokens: int) -> int:
    N, D = config.num_patches, config.hidden_size
    scores = _product(config.num_queries, D, N)
    if config.pruner.kind == "decoder_queries":
        return scores + _product(N, D, D)
    return scores if config.pruner.is_learned else scores + 2 * _product(N, D, task_tokens)


def _decoder(config: ModelConfig, sequence: int, *, last_rows: int) -> int:
    D, P = config.hidden_size, config.proprio_dim
    layers = (config.num_layers - 1) * _layer(config, sequence, sequence)
    proprio = _product(1, P, D) + _product(1, D, D)
    C, A = config.chunk_size, config.action_dim
    head = _product(C, A * D, D) + 2 * _product(C, D, D) + _product(C, D, A)
    return layers + _layer(config, last_rows, sequence) + proprio + head


def _layer(config: ModelConfig, rows: int, sequence: int) -> int:
    """One decoder layer whose output is wanted for `rows` of `sequence` tokens."""
    D = config.hidden_size
    query_and_output = 2 * _product(rows, D, D)
    key_and_value = 2 * _product(sequence, D, D)
    attention = 4 * rows * sequence * D
    return query_and_output + key_and_value + attention + 3 * _product(rows, D, config.intermediate_size)


def _product(rows: int, inner: int, columns: int) -> int:
    return 2 * rows * inner * columns
