from dataclasses import replace
from pathlib import Path

import pytest

from lightvla_ros.learn.collapse import CollapseError, CollapseGuard, CollapseRule
from lightvla_ros.learn.held_out import HeldOut
from lightvla_ros.learn.recipes import TrainingConfig, mini
from lightvla_ros.learn.resume import load_state
from lightvla_ros.learn.run import make_accelerator, prepare, train

HEALTHY = HeldOut(soft_error=0.10, hard_error=0.11, retained_mean=14.0, retained_min=4)
FEW = replace(HEALTHY, retained_mean=2.5)
APART = replace(HEALTHY, hard_error=0.3)


def make_guard() -> CollapseGuard:
    return CollapseGuard(CollapseRule(reports=3, grace=0.25), floor=3.8)


def make_config(demonstrations: Path, start: Path) -> TrainingConfig:
    preset = mini((str(demonstrations),))
    unpruned, pruned = preset.stages
    return replace(
        preset,
        start=str(start),
        num_held_out=1,
        stages=(replace(unpruned, steps=0), replace(pruned, steps=8, batch_size=2, learning_rate=1e-6)),
        collapse=CollapseRule(reports=3, grace=0.0),
        report_every=1,
        save_every=1,
    )


@pytest.mark.parametrize(("bad", "word"), [(FEW, "2.5 tokens"), (APART, "error of 0.300")])
def test_bad_reports_in_a_row_end_the_training_with_a_diagnosis(bad: HeldOut, word: str) -> None:
    guard = make_guard()
    for _ in range(2):
        guard.take(bad, 0.5)
        guard.check()
    guard.take(bad, 0.5)
    with pytest.raises(CollapseError, match=f"collapsed; got .*{word}.*3 bad reports.*expected .*Fix: start"):
        guard.check()


def test_a_good_report_between_bad_ones_forgives_them() -> None:
    guard = make_guard()
    for report in (FEW, APART, HEALTHY, FEW, FEW):
        guard.take(report, 0.5)
        guard.check()
    assert guard.bad_reports == 2


def test_a_stage_may_begin_badly() -> None:
    guard = make_guard()
    for _ in range(5):
        guard.take(FEW, 0.2)
        guard.check()


def test_few_learned_queries_need_not_retain_many_tokens() -> None:
    rule = CollapseRule(min_retained=0.03)
    assert rule.floor(512, 512) == pytest.approx(15.36)
    assert rule.floor(512, 16) == 4.0
    assert rule.floor(16, 2) == 1.0


def test_a_model_that_is_made_to_see_one_token_stops_its_training(
    toy_demonstrations: Path, toy_start: Path, tmp_path: Path
) -> None:
    run = prepare(make_config(toy_demonstrations, toy_start))
    run.model.projector.fc3.weight.data.zero_()  # every visual token is the same, and the first wins
    steps = []
    with pytest.raises(CollapseError, match=r"1\.\d tokens retained at test time"):
        steps.extend(train(run, tmp_path, accelerator=make_accelerator()))
    state = load_state(tmp_path)
    assert state is not None and (state.training["step"], state.bad_reports) == (3, 3)
    assert (tmp_path / "pruned" / "model.safetensors").is_file()


def test_a_collapsed_training_that_is_resumed_says_again_what_is_wrong(
    toy_demonstrations: Path, toy_start: Path, tmp_path: Path
) -> None:
    config = replace(make_config(toy_demonstrations, toy_start), report_every=2, save_every=2)
    config = replace(config, collapse=CollapseRule(reports=1, grace=0.0, max_gap=0.0))
    for resume in (False, True):
        steps = train(prepare(config), tmp_path, accelerator=make_accelerator(), resume=resume)
        with pytest.raises(CollapseError, match=r"got an action error of 0\.\d+ at test time"):
            list(steps)


def test_a_healthy_model_trains_to_the_end(toy_demonstrations: Path, toy_start: Path, tmp_path: Path) -> None:
    run = prepare(make_config(toy_demonstrations, toy_start))
    reports = [p.report for p in train(run, tmp_path, accelerator=make_accelerator())]
    assert len(reports) == 8
    assert all(report is not None and report.held_out.retained_mean > 4 for report in reports)
