"""A training that is stopped anywhere and resumed ends with the weights of one that was not."""

import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest
import torch

from lightvla_ros.cli import main
from lightvla_ros.core.errors import CheckpointError, ConfigError
from lightvla_ros.learn.recipes import TrainingConfig, libero_7b, mini, read_config
from lightvla_ros.learn.resume import STATE_FILE, TrainingState, load_state, save_state
from lightvla_ros.learn.run import Progress, make_accelerator, prepare, train
from lightvla_ros.model import PrunerConfig

WEIGHTS = (
    "model.safetensors",
    "action_head--latest_checkpoint.pt",
    "proprio_projector--latest_checkpoint.pt",
)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make_config(demonstrations: Path, start: Path, *, bf16: bool, ema_decay: float | None) -> TrainingConfig:
    preset = mini((str(demonstrations),))
    return replace(
        preset,
        start=str(start),
        num_held_out=1,
        stages=tuple(replace(stage, steps=5, batch_size=2, accumulate=2) for stage in preset.stages),
        settings=replace(preset.settings, seed=7, bf16=bf16, ema_decay=ema_decay),
        report_every=1,
        save_every=2,
    )


def steps_of(config: TrainingConfig, directory: Path, *, resume: bool = False) -> Iterator[Progress]:
    return train(prepare(config), directory, accelerator=make_accelerator(), resume=resume)


def log_of(directory: Path) -> list[dict[str, object]]:
    """Return the log without the only figures that may differ."""
    lines = [json.loads(line) for line in (directory / "log.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "samples_per_s"} for line in lines]


def assert_same_weights(got: Path, expected: Path, stages: tuple[str, ...] = ("unpruned", "pruned")) -> None:
    for stage in stages:
        for name in WEIGHTS:
            assert (got / stage / name).read_bytes() == (expected / stage / name).read_bytes(), name


@pytest.mark.parametrize(("bf16", "ema_decay"), [(False, 0.9), (True, None)])
def test_a_training_stopped_anywhere_ends_as_one_that_was_not(
    toy_demonstrations: Path, toy_start: Path, tmp_path: Path, bf16: bool, ema_decay: float | None
) -> None:
    config = make_config(toy_demonstrations, toy_start, bf16=bf16, ema_decay=ema_decay)
    whole = tmp_path / "whole"
    whole.mkdir()
    assert len(list(steps_of(config, whole))) == 10
    for stop in (1, 3, 5, 8):
        parts = tmp_path / f"parts{stop}"
        parts.mkdir()
        list(islice(steps_of(config, parts), stop))
        list(steps_of(config, parts, resume=True))
        assert_same_weights(parts, whole)
        assert log_of(parts) == log_of(whole)


def test_learned_queries_resume_as_well(toy_demonstrations: Path, toy_start: Path, tmp_path: Path) -> None:
    config = make_config(toy_demonstrations, toy_start, bf16=False, ema_decay=0.9)
    config = replace(config, pruner=PrunerConfig(kind="vision_queries", num_queries=6))
    directories = [tmp_path / name for name in ("whole", "parts")]
    for directory, stop in zip(directories, (10, 3), strict=True):
        directory.mkdir()
        list(islice(steps_of(config, directory), stop))
    list(steps_of(config, directories[1], resume=True))
    assert_same_weights(directories[1], directories[0])


def test_adapters_resume_as_well(toy_demonstrations: Path, toy_start: Path, tmp_path: Path) -> None:
    preset = libero_7b((str(toy_demonstrations),))
    config = replace(
        preset,
        start=str(toy_start),
        num_held_out=1,
        stages=(replace(preset.stages[1], steps=4, batch_size=2),),
        report_every=1,
        save_every=1,
    )
    directories = [tmp_path / name for name in ("whole", "parts")]
    for directory, stop in zip(directories, (4, 2), strict=True):
        directory.mkdir()
        list(islice(steps_of(config, directory), stop))
    list(steps_of(config, directories[1], resume=True))
    assert_same_weights(directories[1], directories[0], stages=("pruned",))


def test_resuming_what_is_finished_changes_nothing(
    toy_demonstrations: Path, toy_start: Path, tmp_path: Path
) -> None:
    config = make_config(toy_demonstrations, toy_start, bf16=False, ema_decay=0.9)
    list(steps_of(config, tmp_path))
    before = [(tmp_path / "pruned" / name).read_bytes() for name in WEIGHTS], log_of(tmp_path)
    assert list(steps_of(config, tmp_path, resume=True)) == []
    assert ([(tmp_path / "pruned" / name).read_bytes() for name in WEIGHTS], log_of(tmp_path)) == before


def test_another_seed_ends_elsewhere(toy_demonstrations: Path, toy_start: Path, tmp_path: Path) -> None:
    config = make_config(toy_demonstrations, toy_start, bf16=False, ema_decay=0.9)
    other = replace(config, settings=replace(config.settings, seed=8))
    for name, each in (("one", config), ("other", other)):
        (tmp_path / name).mkdir()
        list(islice(steps_of(each, tmp_path / name), 2))
    weights = [(tmp_path / name / "unpruned" / WEIGHTS[0]).read_bytes() for name in ("one", "other")]
    assert weights[0] != weights[1]


def test_a_state_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    assert load_state(tmp_path) is None
    save_state(tmp_path, TrainingState(stage=1, training={"step": 3}, bad_reports=0))
    (tmp_path / f"{STATE_FILE}.part").write_bytes(b"cut off")
    state = load_state(tmp_path)
    assert state is not None and (state.stage, state.training) == (1, {"step": 3})
    assert list(tmp_path.glob("*.part"))
    save_state(tmp_path, TrainingState(stage=1, training={"step": 4}, bad_reports=0))
    assert not list(tmp_path.glob("*.part"))


def test_a_damaged_state_is_told_apart_from_none(tmp_path: Path) -> None:
    (tmp_path / STATE_FILE).write_bytes(b"not a state")
    with pytest.raises(CheckpointError, match="state.pt"):
        load_state(tmp_path)


def test_a_configuration_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    config = replace(mini(("a", "b")), pruner=PrunerConfig(kind="vision_queries", num_queries=9))
    config.write(tmp_path)
    assert read_config(tmp_path) == config
    with pytest.raises(ConfigError, match="training.json"):
        read_config(tmp_path / "elsewhere")


@pytest.mark.slow
def test_a_process_that_is_killed_goes_on_as_if_nothing_had_been(
    toy_demonstrations: Path, toy_start: Path, tmp_path: Path
) -> None:
    options = [
        "train", str(toy_demonstrations), "--start", str(toy_start), "--held-out", "1", "--seed", "3",
        "--unpruned-steps", "40", "--pruned-steps", "40", "--batch-size", "2", "--report-every", "2",
        "--save-every", "4", "--threads", "1",
    ]  # fmt: skip
    assert main([*options, "--out", str(tmp_path / "whole")]) == 0
    killed = tmp_path / "killed"
    chance = random.Random()
    point = chance.randrange(1, 38), chance.uniform(0.0, 0.1)
    code = "import sys; from lightvla_ros.cli import main; sys.exit(main(sys.argv[1:]))"
    process = subprocess.Popen([sys.executable, "-c", code, *options, "--out", str(killed)])
    try:
        lines, delay = point
        deadline = time.monotonic() + 60.0
        log = killed / "log.jsonl"
        while not log.is_file() or log.read_text().count("\n") < lines:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(delay)
    finally:
        process.kill()
        process.wait()
    assert main(["train", "--resume", str(killed)]) == 0
    assert_same_weights(killed, tmp_path / "whole")
    assert log_of(killed) == log_of(tmp_path / "whole"), point
