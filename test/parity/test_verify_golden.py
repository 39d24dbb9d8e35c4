"""`lightvla verify` on the reference implementation's own inputs and outputs."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from lightvla_ros.backends.export import export_bundle
from lightvla_ros.commands import verify
from lightvla_ros.model import load_checkpoint
from lightvla_ros.model.policy_config import read_policy_config

ARRAYS = ("input_ids", "pixel_values", "proprio", "normalized_actions", "keep_mask")


def test_a_bundle_of_the_official_model_verifies_on_the_golden_cases(
    golden_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = golden_dir / "official_tiny"
    cases = load_file(source / "cases.safetensors")
    np.savez(
        tmp_path / "golden.npz", **{n: cases[n] for i in range(3) for n in (f"case{i}/{a}" for a in ARRAYS)}
    )
    model = load_checkpoint(source)
    export_bundle(model, read_policy_config(source, model.config, model.statistics), tmp_path / "bundle")
    parser = argparse.ArgumentParser()
    verify.add_arguments(parser)
    arguments = [str(tmp_path / "bundle"), "--backend", "onnxruntime", "--json"]
    code = verify.run(parser.parse_args([*arguments, "--samples-file", str(tmp_path / "golden.npz")]))
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert code == 0
    assert [sample["retained"] for sample in report["samples"]] == [49, 61, 47]
    assert all(sample["golden"]["kept_iou"] == 1.0 for sample in report["samples"])
    assert all(sample["golden"]["max_abs_error"] < 1e-3 for sample in report["samples"])
