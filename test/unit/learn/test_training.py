import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_batches import make_demonstrations, make_source

from lightvla_ros.learn.batches import action_statistics
from lightvla_ros.learn.mini import make_mini_model, policy_section, vocabulary, write_tokenizer
from lightvla_ros.learn.run import prepare
from lightvla_ros.learn.training import Stage, _Selection, evaluate, predict_for_training, train_stage
from lightvla_ros.model import LightVla, VisionTowerConfig, load_checkpoint, save_checkpoint


@pytest.fixture
def model() -> LightVla:
    torch.manual_seed(0)
    data = make_demonstrations()
    config = make_mini_model(data.meta, 8, {}).config
    small = replace(
        config,
        towers={"featurizer": VisionTowerConfig(embed_dim=32, depth=2, num_heads=2, mlp_dim=64)},
        hidden_size=32,
        intermediate_size=64,
        num_layers=2,
        num_heads=2,
    )
    return LightVla(small, {"toy": action_statistics(data)})


def ticking_clock() -> Callable[[], float]:
    """Return a clock that advances by a second whenever somebody looks."""
    ticks = itertools.count()
    return lambda: float(next(ticks))


def test_unpruned_then_pruned_training_learns_what_it_is_shown(model: LightVla) -> None:
    source = make_source(make_demonstrations())
    everything = source.sample(7, np.random.default_rng(0))
    errors = [evaluate(model, everything, prune=False)[0]]
    for prune in (False, True):
        stage = Stage(name="toy", prune=prune, minutes=5.0, batch_size=4, learning_rate=5e-3)
        reports = [
            report
            for report, _ in train_stage(
                model, stage, source, everything, seed=0, report_every_s=1e9, clock=ticking_clock()
            )
        ]
        assert len(reports) == 1 and reports[0].progress == 1.0
        assert (reports[0].pointing_loss == 0.0) == prune
        error, counts = evaluate(model, everything, prune=prune)
        errors.append(error)
    assert errors[1] < 0.8 * errors[0]
    assert errors[2] < 0.95 * errors[0]
    assert (counts < 128).all()


def test_padding_of_a_shorter_prompt_changes_nothing(model: LightVla) -> None:
    source = make_source(make_demonstrations())
    both, short = source.batch(np.array([1, 12])), source.batch(np.array([1]))
    trimmed = replace(short, input_ids=short.input_ids[:, :4], prompt_mask=short.prompt_mask[:, :3])
    for prune in (False, True):
        select = [_Selection(prune, 0.0, torch.Generator().manual_seed(0)) for _ in range(2)]
        padded = predict_for_training(model, both, select[0])[0][0]
        alone = predict_for_training(model, trimmed, select[1])[0][0]
        torch.testing.assert_close(padded, alone, atol=1e-5, rtol=1e-4)


def test_pruning_passes_gradients_to_the_vision_tower(model: LightVla) -> None:
    batch = make_source(make_demonstrations()).batch(np.array([0, 13]))
    selection = _Selection(True, 1.0, torch.Generator().manual_seed(0))
    actions, _ = predict_for_training(model, batch, selection)
    actions.sum().backward()
    gradient = model.vision_backbone.towers()[0].patch_embed.proj.weight.grad
    assert gradient is not None and gradient.abs().max() > 0


def test_the_tokenizer_knows_the_words_of_the_instructions(tmp_path: Path) -> None:
    from tokenizers import Tokenizer

    vocab = vocabulary(("Take the cup", "take the red cup"))
    write_tokenizer(tmp_path / "tokenizer.json", vocab)
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert tokenizer.encode("take the RED cup").ids == [1, *(vocab[w] for w in ("take", "the", "red", "cup"))]
    assert tokenizer.encode("take the bucket").ids[-1] == 0


def test_a_trained_model_survives_its_checkpoint(model: LightVla, tmp_path: Path) -> None:
    data = make_demonstrations()
    save_checkpoint(model, tmp_path, extras={"policy": policy_section(data.meta)})
    batch = make_source(data).batch(np.array([0]))
    expected, _ = model.eval().predict(batch.pixel_values, batch.input_ids, batch.proprio, batch.prompt_mask)
    got, _ = load_checkpoint(tmp_path).predict(
        batch.pixel_values, batch.input_ids, batch.proprio, batch.prompt_mask
    )
    assert torch.equal(got, expected)


def test_holding_out_every_episode_is_refused(tmp_path: Path) -> None:
    from lightvla_ros.core.errors import ConfigError
    from lightvla_ros.learn.demonstrations import Episode, write_episode, write_meta

    data = make_demonstrations()
    write_meta(tmp_path, data.meta)
    write_episode(
        tmp_path,
        0,
        Episode(
            images=data.images[:12], proprio=data.proprio[:12], actions=data.actions[:12], instruction_index=0
        ),
    )
    with pytest.raises(ConfigError, match="held-out"):
        prepare(tmp_path, num_held_out=1, start=None, seed=0)
