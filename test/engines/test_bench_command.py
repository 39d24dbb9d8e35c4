"""`lightvla bench`: rows, bounds, plots and suggested buckets."""

from __future__ import annotations

import argparse
import io
import json
import sys
from contextlib import redirect_stderr, redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import pytest

from lightvla_ros.commands import bench
from lightvla_ros.core.errors import BundleError, ConfigError, EngineError

MINI = Path(__file__).parents[2] / "engines" / "mini"
STAGES = ("preprocess", "vision", "pruner", "decoder", "post", "total")
FAST = ("--repeat", 3, "--threads", 1)


def run(*arguments: object) -> int:
    parser = argparse.ArgumentParser()
    bench.add_arguments(parser)
    return bench.run(parser.parse_args([str(argument) for argument in arguments]))


def last_json(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return content


class Bench(NamedTuple):
    """One run of every backend on the tiny bundle."""

    summary: dict[str, Any]
    skipped: str
    plots: Path


@pytest.fixture(scope="module")
def measured(tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Measure once; the tests look at different sides of it."""
    plots = tmp_path_factory.mktemp("bench") / "new" / "plots"
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        arguments = ("--random", "none", "--retained", 4, 32, 8, 99, *FAST, "--plots", plots, "--json")
        assert run(tiny_bundle, *arguments) == 0
    return Bench(json.loads(out.getvalue().splitlines()[-1]), err.getvalue(), plots)


@pytest.fixture
def no_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the optional packages impossible to import."""
    for name in ("matplotlib", "lightvla_ros.sim.tabletop"):
        monkeypatch.setitem(sys.modules, name, None)


def test_every_backend_present_has_a_row_per_count_that_fits_and_stage(measured: Bench) -> None:
    rows = measured.summary["rows"]
    backends = list(dict.fromkeys(row["backend"] for row in rows))
    assert backends[:3] == ["reference-style", "torch", "onnxruntime"]
    assert [(row["backend"], row["retained"], row["stage"]) for row in rows] == [
        (backend, count, stage) for backend in backends for count in (4, 8, 32) for stage in STAGES
    ]


def test_a_backend_that_does_not_run_here_is_skipped_with_the_reason(measured: Bench) -> None:
    assert "skipping tensorrt" in measured.skipped
    assert "tensorrt" not in {row["backend"] for row in measured.summary["rows"]}


def test_a_backend_that_was_named_must_run(tiny_bundle: Path) -> None:
    with pytest.raises((EngineError, BundleError), match="tensorrt"):
        run(tiny_bundle, "--backend", "tensorrt", "--random", "none", *FAST)


def test_rows_have_percentiles_speeds_and_bounds(measured: Bench) -> None:
    for row in measured.summary["rows"]:
        assert 0 < row["min_ms"] <= row["p50_ms"] <= row["p95_ms"] <= row["p99_ms"]
        counted = row["stage"] not in ("preprocess", "post")
        figures = [row[name] for name in ("gflop", "gflops", "bound_ms", "fraction")]
        assert all(figure > 0 for figure in figures) if counted else figures == [None] * 4
    assert measured.summary["threads"] == 1
    assert measured.summary["roofline"]["bytes_per_number"] == 4


def test_work_and_bounds_of_a_chunk_are_the_sums_of_its_stages(measured: Bench) -> None:
    rows = measured.summary["rows"]
    for first in range(0, len(rows), len(STAGES)):
        *stages, total = rows[first : first + len(STAGES)]
        for figure in ("gflop", "bound_ms"):
            assert total[figure] == pytest.approx(sum(row[figure] or 0 for row in stages))


def test_speed_and_scaling_follow_from_the_rows(measured: Bench) -> None:
    rows = measured.summary["rows"]
    p50 = {(row["backend"], row["retained"], row["stage"]): row["p50_ms"] for row in rows}
    for entry in measured.summary["speedup"]:
        backend, count = entry["backend"], entry["retained"]
        ratio = p50["reference-style", count, "total"] / p50[backend, count, "total"]
        assert entry["speedup"] == pytest.approx(ratio)
    for entry in measured.summary["decoder_scaling"]:
        backend, count = entry["backend"], entry["retained"]
        ratio = p50[backend, count, "decoder"] / p50[backend, 32, "decoder"]
        assert entry["measured"] == pytest.approx(ratio)
        assert entry["expected"] <= 1.0


def test_the_reference_style_is_charged_for_its_wasted_operations(measured: Bench) -> None:
    rows = measured.summary["rows"]
    reference, ours = ([r for r in rows if r["backend"] == b] for b in ("reference-style", "torch"))
    for wasteful, needed in zip(reference, ours, strict=True):
        assert wasteful["bound_ms"] == needed["bound_ms"]
        assert needed["gflop"] is None or wasteful["gflop"] > needed["gflop"]


def test_plots_are_pictures_of_900_pixels(measured: Bench) -> None:
    paths = sorted(measured.plots.iterdir())
    assert [path.name for path in paths] == ["tiny-latency.png", "tiny-stages.png"]
    for path in paths:
        assert path.read_bytes().startswith(b"\x89PNG")
        assert cv2.imread(str(path)).shape == (450, 900, 3)
        assert path.stat().st_size < 150_000


def test_a_random_model_runs_on_both_kinds_of_backend(capsys: pytest.CaptureFixture[str]) -> None:
    backends = ("--backend", "reference-style", "onnxruntime")
    assert run("none", "--random", "256x2@2", "--retained", 8, *backends, *FAST, "--json") == 0
    rows = last_json(capsys)["rows"]
    assert {row["model"] for row in rows} == {"random-256x2@2"}
    assert {row["backend"] for row in rows} == {"reference-style", "onnxruntime"}


@pytest.mark.usefixtures("no_packages")
def test_without_matplotlib_nothing_is_measured_in_vain(tiny_bundle: Path, tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"pip install 'lightvla_ros\[plot\]'"):
        run(tiny_bundle, "--random", "none", "--plots", tmp_path)


def test_options_that_mean_nothing_are_refused(tiny_bundle: Path) -> None:
    with pytest.raises(ConfigError, match="'abacus'"):
        run(tiny_bundle, "--backend", "abacus", "--random", "none")
    with pytest.raises(ConfigError, match="--backend"):
        run(tiny_bundle, "--backend", "all", "torch", "--random", "none")
    with pytest.raises(ConfigError, match="32, the visual tokens of tiny"):
        run(tiny_bundle, "--retained", 64, "--random", "none", *FAST)
    with pytest.raises(ConfigError, match="WIDTHxLAYERS"):
        run("none", "--random", "100x2", *FAST)


def test_buckets_are_suggested_from_what_the_policy_retains_in_its_world(
    capsys: pytest.CaptureFixture[str],
) -> None:
    if find_spec("mujoco") is None:
        pytest.skip("needs the world: pip install 'lightvla_ros[sim]'")
    assert run(MINI, "--suggest-buckets", "--frames", 6, "--threads", 1, "--json") == 0
    report = last_json(capsys)
    assert report["source"] == "tabletop"
    assert report["frames"] == sum(report["histogram"].values()) == 6
    assert report["suggested"]["buckets"][-1] == report["present"]["buckets"][-1] == 128
    assert report["suggested"]["mean_padding"] <= report["present"]["mean_padding"]
    counts = [int(count) for count in report["histogram"]]
    assert min(counts) <= report["retained_mean"] <= max(counts)


def test_policies_without_a_world_are_shown_random_images(
    tiny_bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tiny_bundle, "--suggest-buckets", "--frames", 5, "--threads", 1, "--json") == 0
    report = last_json(capsys)
    assert (report["source"], report["frames"]) == ("random", 5)
    assert report["suggested"]["buckets"][-1] == 32


@pytest.mark.usefixtures("no_packages")
def test_a_world_that_is_not_installed_is_named() -> None:
    with pytest.raises(EngineError, match=r"pip install 'lightvla_ros\[sim\]'"):
        run(MINI, "--suggest-buckets", "--frames", 1)
