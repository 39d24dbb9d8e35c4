import json
import shutil
import sys
from pathlib import Path

import pytest

from lightvla_ros.cli import main
from lightvla_ros.learn.recipes import read_config
from lightvla_ros.model import ModelConfig, load_checkpoint

SHORT = ["--held-out", "1", "--unpruned-steps", "3", "--pruned-steps", "2", "--batch-size", "2"]


def train(*options: str | Path) -> int:
    return main(["train", *map(str, options)])


def test_training_leaves_checkpoints_log_and_configuration(
    toy_demonstrations: Path, toy_start: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    options = [toy_demonstrations, "--start", toy_start, "--out", out, *SHORT, "--report-every", "2"]
    assert train(*options, "--tensorboard") == 0
    printed = capsys.readouterr().out.splitlines()
    logged = (out / "log.jsonl").read_text().splitlines()
    assert printed[:-1] == logged
    reports = [json.loads(line) for line in logged]
    assert [(r["stage"], r["step"]) for r in reports] == [("unpruned", 2), ("unpruned", 3), ("pruned", 2)]
    assert {"loss", "soft_error", "hard_error", "retained_mean", "learning_rate"} <= set(reports[0])
    assert printed[-1].startswith(f"done: {out / 'pruned'}")
    assert list((out / "tensorboard").glob("events.*"))
    assert read_config(out).start == str(toy_start)
    for stage in ("unpruned", "pruned"):
        load_checkpoint(out / stage)
        assert (out / stage / "tokenizer.json").read_text() == (toy_start / "tokenizer.json").read_text()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_a_compiled_training_learns_the_same(
    toy_demonstrations: Path, toy_start: Path, tmp_path: Path
) -> None:
    options = [toy_demonstrations, "--start", toy_start, *SHORT, "--precision", "fp32", "--report-every", "1"]
    assert train(*options, "--out", tmp_path / "plain") == 0
    assert train(*options, "--out", tmp_path / "compiled", "--compile") == 0
    assert read_config(tmp_path / "compiled").compile
    plain, compiled = (
        [json.loads(line)["loss"] for line in (tmp_path / name / "log.jsonl").read_text().splitlines()]
        for name in ("plain", "compiled")
    )
    assert compiled == pytest.approx(plain, rel=1e-4)


def test_without_a_compiler_there_is_nothing_to_compile_with(
    toy_demonstrations: Path,
    toy_start: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    options = [toy_demonstrations, "--start", toy_start, "--out", tmp_path / "run", *SHORT]
    assert train(*options, "--compile") == 1
    assert "no no-such-compiler; expected a C++ compiler" in capsys.readouterr().err


def test_a_training_is_not_written_over(
    toy_demonstrations: Path, toy_start: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [toy_demonstrations, "--start", toy_start, "--out", tmp_path / "run", *SHORT]
    assert train(*options) == 0
    assert train(*options) == 1
    assert f"--resume {tmp_path / 'run'}" in capsys.readouterr().err


def test_options_change_the_recipe(toy_demonstrations: Path, toy_start: Path, tmp_path: Path) -> None:
    options = [
        "--pruner", "vision_queries", "--num-queries", "5", "--noise", "gumbel", "--noise-schedule", "fixed",
        "--noise-scale", "0.5", "--reference-compatible", "--precision", "fp32", "--learning-rate", "1e-4",
        "--ema-decay", "0.5", "--seed", "4",
    ]  # fmt: skip
    out = tmp_path / "run"
    assert train(toy_demonstrations, "--start", toy_start, "--out", out, *SHORT, *options) == 0
    config = read_config(out)
    assert config.settings.noise.kind == "gumbel" and config.settings.noise.scale_at(1.0) == 0.5
    assert config.settings.reference_compatible and not config.settings.bf16
    assert (config.settings.ema_decay, config.settings.seed) == (0.5, 4)
    assert [stage.learning_rate for stage in config.stages] == pytest.approx([1e-4, 5e-5])
    pruner = ModelConfig.from_directory(out / "pruned").pruner
    assert (pruner.kind, pruner.num_queries) == ("vision_queries", 5)


def test_the_7b_recipe_ends_in_the_published_layout_without_adapters(
    toy_demonstrations: Path, toy_start: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    options = ["--recipe", "libero-7b", "--start", toy_start, "--out", out, "--held-out", "1"]
    assert train(toy_demonstrations, *options, "--pruned-steps", "2", "--batch-size", "2") == 0
    assert not (out / "unpruned").exists()
    assert load_checkpoint(out / "pruned").config.action_row_offset == 0
    assert read_config(out).lora is not None


def test_a_dry_run_says_what_training_takes_and_does_nothing(
    toy_demonstrations: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert train(toy_demonstrations, "--held-out", "1", "--out", out, "--dry-run") == 0
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("action_head", "trainable", "unpruned: ", "GB", "TFLOP"))
    assert not out.exists()


def test_a_dry_run_finds_bad_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(tmp_path / "nowhere", "--dry-run") == 1
    assert "nowhere" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--out", "run"], "demonstrations; got none"),
        (["somewhere"], "--out; got none"),
        (["somewhere", "--out", "run", "--recipe", "libero-7b"], "--start; got none"),
        (["somewhere", "--out", "run", "--report-every", "3", "--save-every", "4"], "--save-every; got 4"),
        (["somewhere", "--out", "run", "--unpruned-steps", "0", "--pruned-steps", "0"], "0 in all"),
        (["--resume", "nowhere"], "nowhere/training.json"),
    ],
)
def test_what_is_missing_is_said(
    options: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(*options) == 1
    assert complaint in capsys.readouterr().err


def test_without_tensorboard_the_extra_that_brings_it_is_named(
    toy_demonstrations: Path,
    toy_start: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in [name for name in sys.modules if name.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    out = tmp_path / "run"
    assert train(toy_demonstrations, "--start", toy_start, "--out", out, *SHORT, "--tensorboard") == 1
    assert "lightvla_ros[train]" in capsys.readouterr().err
