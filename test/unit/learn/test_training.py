import copy
import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_batches import make_source
from toy_training import make_demonstrations, toy_sizes

from lightvla_ros.core.errors import ConfigError
from lightvla_ros.core.preprocess import ImagePreprocessor
from lightvla_ros.learn.batches import Batch, action_statistics
from lightvla_ros.learn.data import load_data
from lightvla_ros.learn.demonstrations import load_demonstrations
from lightvla_ros.learn.held_out import evaluate
from lightvla_ros.learn.mini import policy_section, tokenizer_json, vocabulary
from lightvla_ros.learn.noise import Noise
from lightvla_ros.learn.objective import Selection, predict_for_training
from lightvla_ros.learn.recipes import mini
from lightvla_ros.learn.run import make_accelerator
from lightvla_ros.learn.stages import Stage
from lightvla_ros.learn.training import Report, Settings, StageTraining
from lightvla_ros.model import LightVla, PrunerConfig, load_checkpoint, save_checkpoint

PRUNED = Selection(True, Noise(), 0.0)
UNPRUNED = Selection(False)


def make_model(pruner: PrunerConfig | None = None) -> LightVla:
    torch.manual_seed(0)
    data = make_demonstrations()
    sizes = replace(toy_sizes(data.meta, 8), pruner=pruner or PrunerConfig())
    return LightVla(sizes, {"toy": action_statistics(data)})


def make_stage(**changes: Any) -> Stage:
    values: dict[str, Any] = {
        "name": "toy",
        "prune": False,
        "steps": 60,
        "batch_size": 4,
        "learning_rate": 5e-3,
    }
    return Stage(**{**values, **changes})


def train(model: LightVla, stage: Stage, held_out: Batch, **settings: Any) -> list[Report]:
    training = StageTraining(
        model, stage, number=0, settings=Settings(ema_decay=0.9, **settings), accelerator=make_accelerator()
    )
    steps = training.run(make_source(make_demonstrations()), held_out, report_every=25)
    return [report for report in steps if report is not None]


def test_unpruned_then_pruned_training_learns_what_it_is_shown() -> None:
    model = make_model()
    everything = make_source(make_demonstrations()).sample(7, np.random.default_rng(0))
    errors = [evaluate(model, everything, UNPRUNED).hard_error]
    for prune in (False, True):
        reports = train(model, make_stage(prune=prune), everything)
        assert [report.step for report in reports] == [25, 50, 60]
        assert all((report.pointing_loss == 0.0) == prune for report in reports)
        errors.append(evaluate(model, everything, Selection(prune)).hard_error)
    assert errors[1] < 0.8 * errors[0]
    assert errors[2] < 0.95 * errors[0]
    assert 1 <= reports[-1].held_out.retained_mean < 128


@pytest.mark.parametrize("kind", ["vision_queries", "decoder_queries"])
def test_learned_queries_are_trained_in_the_pruned_stage_alone(kind: str) -> None:
    model = make_model(PrunerConfig(kind=kind, num_queries=5))
    before = copy.deepcopy(model.pruner.state_dict())
    held_out = make_source(make_demonstrations()).sample(3, np.random.default_rng(0))
    train(model, make_stage(steps=2), held_out)
    assert torch.equal(model.pruner.state_dict()["queries"], before["queries"])
    reports = train(model, make_stage(steps=2, prune=True), held_out)
    assert not torch.equal(model.pruner.state_dict()["queries"], before["queries"])
    assert reports[-1].held_out.retained_mean <= 5


def test_a_report_tells_the_error_in_training_from_that_at_test_time() -> None:
    model = make_model()
    batch = make_source(make_demonstrations()).sample(7, np.random.default_rng(0))
    held_out = evaluate(model, batch, Selection(True, Noise(), 5.0))
    predicted, keep_mask = model.predict(
        batch.pixel_values, batch.input_ids, batch.proprio, batch.prompt_mask
    )
    assert held_out.hard_error == pytest.approx(
        float((predicted - batch.actions).detach().abs().mean()), rel=1e-5
    )
    assert held_out.soft_error != held_out.hard_error
    assert held_out.retained_min == int(keep_mask.sum(-1).min())
    unpruned = evaluate(model, batch, UNPRUNED)
    assert unpruned.soft_error == unpruned.hard_error and unpruned.retained_mean == 128


def test_padding_of_a_shorter_prompt_changes_nothing() -> None:
    model, source = make_model(), make_source(make_demonstrations())
    both, short = source.batch(np.array([1, 12])), source.batch(np.array([1]))
    trimmed = replace(short, input_ids=short.input_ids[:, :4], prompt_mask=short.prompt_mask[:, :3])
    for selection in (UNPRUNED, PRUNED):
        padded = predict_for_training(model, both, selection)[0][0]
        alone = predict_for_training(model, trimmed, selection)[0][0]
        torch.testing.assert_close(padded, alone, atol=1e-5, rtol=1e-4)


def test_padding_takes_part_in_the_queries_when_the_reference_is_to_be_followed() -> None:
    model, source = make_model(), make_source(make_demonstrations())
    short = source.batch(np.array([1]))
    assert not short.prompt_mask.all()
    model.language_model.model.embed_tokens.weight.data[0] *= 100.0  # the padding's row
    masked = predict_for_training(model, short, PRUNED)[0]
    followed = predict_for_training(model, short, PRUNED._replace(reference_compatible=True))[0]
    assert not torch.allclose(masked, followed)


def test_pruning_passes_gradients_to_the_vision_tower() -> None:
    model, batch = make_model(), make_source(make_demonstrations()).batch(np.array([0, 13]))
    actions, _ = predict_for_training(model, batch, Selection(True, Noise(), 1.0), (0,))
    actions.sum().backward()
    gradient = model.vision_backbone.towers()[0].patch_embed.proj.weight.grad
    assert gradient is not None and gradient.abs().max() > 0


def test_accumulated_passes_count_as_one_batch() -> None:
    held_out = make_source(make_demonstrations()).sample(1, np.random.default_rng(0))
    model, twin = make_model(), make_model()
    stage = make_stage(steps=1, accumulate=3, batch_size=2, warm_up=0.0, gradient_norm=None)
    settings = Settings(ema_decay=None, bf16=False, pointing_weight=0.0)
    training = StageTraining(model, stage, number=0, settings=settings, accelerator=make_accelerator())
    drawn: list[Batch] = []
    source = make_source(make_demonstrations())
    draw = source.draw

    def recorded(*args: Any) -> Batch:
        drawn.append(draw(*args))
        return drawn[-1]

    source.draw = recorded  # type: ignore[method-assign]
    list(training.run(source, held_out, report_every=1))
    optimizer = torch.optim.AdamW(twin.parameters(), lr=stage.learning_rate_at(0), weight_decay=0.01)
    joined = Batch(
        **{name: torch.cat([getattr(batch, name) for batch in drawn]) for name in Batch.__dataclass_fields__}
    )
    predicted, _ = predict_for_training(twin, joined, UNPRUNED)
    (predicted - joined.actions).abs().mean().backward()
    optimizer.step()
    for name, weight in twin.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], weight, atol=2e-4, rtol=0, msg=name)


def test_the_learning_rate_warms_up_and_falls_along_a_cosine() -> None:
    stage = make_stage(steps=100, learning_rate=1.0, warm_up=0.1)
    rates = [stage.learning_rate_at(step) for step in range(100)]
    assert rates[:10] == pytest.approx([0.1 * (i + 1) for i in range(10)])
    assert rates[55] == pytest.approx(0.5)
    assert rates == [*rates[:10], *sorted(rates[10:], reverse=True)]
    assert 0 < rates[-1] < 1e-3


def test_the_learning_rate_of_the_reference_drops_once() -> None:
    stage = make_stage(steps=100, learning_rate=1.0, warm_up=0.0, drop_at=75)
    assert [stage.learning_rate_at(step) for step in (0, 74, 75, 99)] == pytest.approx([1, 1, 0.1, 0.1])


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"steps": -1}, "a number from 0 on"),
        ({"learning_rate": math.nan}, "a finite number above 0"),
        ({"batch_size": 0}, "a number from 1 on"),
        ({"warm_up": 1.0}, "a number from 0 to below 1"),
    ],
)
def test_a_stage_without_meaning_is_refused(change: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError, match=f"toy.*{next(iter(change))}.*expected {expected}"):
        make_stage(**change)


def test_the_tokenizer_knows_the_words_of_the_instructions() -> None:
    from tokenizers import Tokenizer

    vocab = vocabulary(("Take the cup", "take the red cup"))
    tokenizer = Tokenizer.from_str(tokenizer_json(vocab))
    assert tokenizer.encode("take the RED cup").ids == [1, *(vocab[w] for w in ("take", "the", "red", "cup"))]
    assert tokenizer.encode("take the bucket").ids[-1] == 0


def test_a_trained_model_survives_its_checkpoint(tmp_path: Path) -> None:
    model, data = make_model(), make_demonstrations()
    save_checkpoint(model, tmp_path, extras={"policy": policy_section(data.meta)})
    batch = make_source(data).batch(np.array([0]))
    expected, _ = model.eval().predict(batch.pixel_values, batch.input_ids, batch.proprio, batch.prompt_mask)
    got, _ = load_checkpoint(tmp_path).predict(
        batch.pixel_values, batch.input_ids, batch.proprio, batch.prompt_mask
    )
    assert torch.equal(got, expected)


def test_held_out_episodes_are_spread_and_not_trained_on(toy_demonstrations: Path) -> None:
    config = replace(mini((str(toy_demonstrations),)), num_held_out=2)
    data = load_data(config)
    # Chunks start in the first 5, 2, 3, 4, 2 and 5 steps; episodes 1 and 4 are held out.
    assert len(data.source) == 5 + 3 + 4 + 5
    assert len(data.held_out.actions) == 2 + 2


def test_holding_out_every_episode_is_refused(toy_demonstrations: Path) -> None:
    with pytest.raises(ConfigError, match="held-out"):
        load_data(replace(mini((str(toy_demonstrations),)), num_held_out=6))


def test_a_start_that_sees_whole_images_is_trained_on_them(
    toy_demonstrations: Path, toy_start: Path, tmp_path: Path
) -> None:
    start = shutil.copytree(toy_start, tmp_path / "start")
    told = json.loads((start / "lightvla.json").read_text())
    told["policy"]["center_crop"] = False
    (start / "lightvla.json").write_text(json.dumps(told))
    config = replace(mini((str(toy_demonstrations),)), start=str(start), num_held_out=1)
    trained_on = load_data(config).source.batch(np.array([0])).pixel_values
    preprocess = ImagePreprocessor(image_size=16, normalizations=("siglip",), jpeg=False, center_crop=False)
    images = list(load_demonstrations(toy_demonstrations).images[0])
    np.testing.assert_array_equal(trained_on.numpy(), preprocess(images))


def test_demonstrations_of_another_robot_are_refused(toy_demonstrations: Path, tmp_path: Path) -> None:
    model = make_model()
    smaller = LightVla(replace(model.config, proprio_dim=7), model.statistics)
    save_checkpoint(smaller, tmp_path)
    (tmp_path / "tokenizer.json").write_text(tokenizer_json(vocabulary(("take the cup",))))
    config = replace(mini((str(toy_demonstrations),)), start=str(tmp_path), num_held_out=1)
    with pytest.raises(ConfigError, match="state of the demonstrations; got 8; expected 7"):
        load_data(config)
