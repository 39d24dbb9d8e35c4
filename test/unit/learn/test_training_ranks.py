"""Several processes train one model, its action head included: in the reference each has its own."""

import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lightvla_ros.learn.recipes import TrainingConfig, mini

PROGRAM = Path(__file__).with_name("ranks_program.py")


def make_config(demonstrations: Path, start: Path, accumulate: int) -> TrainingConfig:
    preset = mini((str(demonstrations),))
    return replace(
        preset,
        start=str(start),
        num_held_out=1,
        stages=tuple(replace(s, steps=3, batch_size=2, accumulate=accumulate) for s in preset.stages),
        settings=replace(preset.settings, bf16=False, ema_decay=None),
        report_every=3,
        save_every=3,
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def weights_of_ranks(config: TrainingConfig, directory: Path, num_ranks: int) -> list[dict[str, Tensor]]:
    directory.mkdir()
    config.write(directory)
    environment = {
        **os.environ,
        "ACCELERATE_USE_CPU": "true",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "WORLD_SIZE": str(num_ranks),
    }
    processes = [
        subprocess.Popen(
            [sys.executable, str(PROGRAM), str(directory)],
            env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(num_ranks)
    ]
    try:
        assert [process.wait(timeout=120) for process in processes] == [0] * num_ranks
    finally:
        for process in processes:
            process.kill()
    return [torch.load(directory / f"rank{rank}.pt", weights_only=True) for rank in range(num_ranks)]


@pytest.mark.slow
def test_two_processes_train_one_model_that_equals_one_process_with_twice_the_passes(
    toy_demonstrations: Path, toy_start: Path, tmp_path: Path
) -> None:
    config = make_config(toy_demonstrations, toy_start, accumulate=1)
    first, second = weights_of_ranks(config, tmp_path / "two", 2)
    heads = [name for name in first if name.startswith(("action_head.", "proprio_projector."))]
    assert len(heads) == 20
    assert all(torch.equal(first[name], second[name]) for name in first)
    alone = make_config(toy_demonstrations, toy_start, accumulate=2)
    (expected,) = weights_of_ranks(alone, tmp_path / "one", 1)
    start = torch.load(toy_start / "action_head--latest_checkpoint.pt", weights_only=True)
    for name, weight in expected.items():
        torch.testing.assert_close(first[name], weight, rtol=0, atol=1e-4, msg=name)
    moved = first["action_head.model.fc2.weight"] - start["module.model.fc2.weight"]
    assert moved.abs().max() > 5e-4
