"""Properties of the whole network that parity with golden data alone would not pin down."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from lightvla_ros.core.errors import ConfigError, SpecError
from lightvla_ros.model import LightVla, ModelConfig
from lightvla_ros.model.decoder import RMSNorm
from lightvla_ros.model.pruner import compact, rms_normalize


def inputs(config: ModelConfig, *, batch: int = 1, length: int = 9, seed: int = 0) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    channels = 3 * len(config.towers) * config.num_cameras
    ids = torch.randint(4, config.vocab_size, (batch, length), generator=generator)
    ids[:, 0] = config.bos_id
    return (
        torch.randn(batch, channels, config.image_size, config.image_size, generator=generator),
        ids,
        torch.rand(batch, config.proprio_dim, generator=generator) * 2 - 1,
    )


def with_config(model: LightVla, **changes: Any) -> LightVla:
    other = LightVla(replace(model.config, **changes), model.statistics)
    other.load_state_dict(model.state_dict())
    return other.eval()


def test_a_batch_gives_what_its_samples_give(tiny_model: LightVla) -> None:
    pixels, ids, proprio = inputs(tiny_model.config, batch=4)
    actions, keep_mask = tiny_model.predict(pixels, ids, proprio)
    assert len(set(keep_mask.sum(1).tolist())) > 1, "samples with equal counts would need no padding"
    for i in range(4):
        alone = tiny_model(pixels[i : i + 1], ids[i : i + 1], proprio[i])
        assert keep_mask[i].equal(alone.keep_mask)
        assert torch.allclose(actions[i], alone.normalized_actions, atol=1e-5)


def test_padded_prompts_give_what_unpadded_ones_give(tiny_model: LightVla) -> None:
    pixels, ids, proprio = inputs(tiny_model.config)
    padded = torch.cat([ids, torch.full((1, 5), 7)], dim=1)
    mask = torch.arange(padded.shape[1] - 1)[None] < ids.shape[1] - 1
    actions, keep_mask = tiny_model.predict(pixels, padded, proprio, prompt_mask=mask)
    alone = tiny_model(pixels, ids, proprio)
    assert keep_mask[0].equal(alone.keep_mask)
    assert torch.allclose(actions[0], alone.normalized_actions, atol=1e-5)


def test_attention_looks_both_ways(tiny_model: LightVla) -> None:
    pixels, ids, proprio = inputs(tiny_model.config)
    before = tiny_model(pixels, ids, proprio)
    hidden = before.last_hidden
    changed = with_config(tiny_model)
    with torch.no_grad():
        # The last token of the sequence is </s>; the pruner sees it too, so the retained set is fixed below.
        changed.language_model.model.embed_tokens.weight[tiny_model.config.stop_id] += 1.0
    indices = before.keep_mask.nonzero()[:, 0]
    patches, prompt = before.patches[None], tiny_model.embed_prompt(ids)
    rows = [
        model.decode(patches[:, indices], indices[None], prompt, proprio, every_row=True)[0]
        for model in (tiny_model, changed)
    ]
    first = tiny_model.config.num_action_rows + 2  # BOS in our order of rows
    assert torch.allclose(rows[0][first], hidden[0], atol=1e-5)
    assert (rows[1][first] - rows[0][first]).abs().max() > 1e-3


@pytest.mark.parametrize(("offset", "rows"), [(2, slice(-56, None)), (0, slice(-58, -2))])
def test_the_row_offset_chooses_the_slice_the_head_reads(
    tiny_model: LightVla, offset: int, rows: slice
) -> None:
    model = with_config(tiny_model, action_row_offset=offset)
    output = model(*inputs(model.config))
    assert torch.allclose(output.action_hidden, output.last_hidden[rows], atol=1e-6)
    head_only = model.action_head(output.last_hidden[None, rows])[0]
    assert torch.allclose(head_only, output.normalized_actions, atol=1e-5)


def test_a_trailing_action_prefix_is_appended_once(tiny_model: LightVla) -> None:
    pixels, ids, proprio = inputs(tiny_model.config)
    prefix = torch.tensor([[tiny_model.config.action_prefix_id]])
    without = tiny_model(pixels, ids, proprio)
    with_prefix = tiny_model(pixels, torch.cat([ids, prefix], dim=1), proprio)
    assert with_prefix.last_hidden.equal(without.last_hidden)


def test_the_hidden_rows_are_as_many_as_the_sequence(tiny_model: LightVla) -> None:
    pixels, ids, proprio = inputs(tiny_model.config, length=11)
    output = tiny_model(pixels, ids, proprio)
    assert output.last_hidden.shape == (int(output.keep_mask.sum()) + 11 + 59, 32)


def test_positions_are_those_before_pruning(tiny_model: LightVla) -> None:
    _, ids, proprio = inputs(tiny_model.config)
    prompt = tiny_model.embed_prompt(ids)
    visual = torch.randn(1, 3, 32, generator=torch.Generator().manual_seed(1))
    here, there = (
        tiny_model.decode(visual, torch.tensor([indices]), prompt, proprio)
        for indices in ([0, 1, 2], [0, 1, 31])
    )
    assert (here - there).abs().max() > 1e-4


def test_cached_prompt_keys_give_the_keys_of_all_task_tokens(tiny_model: LightVla) -> None:
    _, ids, proprio = inputs(tiny_model.config)
    prompt = tiny_model.embed_prompt(ids)
    task_tokens, mask = tiny_model.task_tokens(prompt, proprio)
    assert mask is None
    assert tiny_model.task_keys(rms_normalize(prompt), proprio).equal(rms_normalize(task_tokens))


def test_compaction_keeps_each_samples_own_tokens(tiny_model: LightVla) -> None:
    patches = torch.arange(2 * 5).reshape(2, 5, 1).float()
    keep_mask = torch.tensor([[False, True, False, True, True], [False, False, True, False, False]])
    tokens, indices, mask = compact(patches, tiny_model.pruner.retained(keep_mask))
    assert tokens[0, :, 0].tolist() == [1, 3, 4]
    assert (tokens[1, 0, 0], indices[1, 0]) == (7, 2)
    assert mask.tolist() == [[True, True, True], [True, False, False]]


def test_the_norm_uses_the_epsilon_in_force() -> None:
    x = torch.full((1, 4), 1e-3)
    assert torch.allclose(RMSNorm(4, eps=1e-6)(x), torch.full((1, 4), 2**-0.5))
    assert ModelConfig().rms_norm_eps == 1e-6


def test_inputs_of_another_shape_are_refused(tiny_model: LightVla) -> None:
    pixels, ids, proprio = inputs(tiny_model.config)
    with pytest.raises(SpecError, match="pixel_values"):
        tiny_model(pixels[:, :6], ids, proprio)
    with pytest.raises(SpecError, match="input_ids"):
        tiny_model(pixels, ids[0], proprio)
    with pytest.raises(SpecError, match="proprio"):
        tiny_model(pixels, ids, proprio[:, :7])


def test_actions_are_unnormalised_with_the_named_statistics(
    tiny_config: ModelConfig, statistics: dict[str, Any]
) -> None:
    with torch.device("meta"):
        model = LightVla(tiny_config, statistics)
    normalized = torch.zeros(8, 7)
    first = model.unnormalize(normalized, "first")
    assert first.shape == (8, 7)
    assert first[0, 0] == pytest.approx(0.05)
    assert model.unnormalize(normalized, "second_no_noops")[0, 0] == pytest.approx(0.1)
    assert first[0, 6] == 0.0, "the gripper passes through"
    with pytest.raises(ConfigError, match="first_no_noops"):
        model.unnormalize(normalized, "third")
