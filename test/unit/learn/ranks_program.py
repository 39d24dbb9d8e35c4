"""One of several training processes; keeps what its rank ends with. Started by `test_training_ranks.py`."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from lightvla_ros.learn.recipes import read_config
from lightvla_ros.learn.run import make_accelerator, prepare, train


def main(directory: Path) -> None:
    torch.set_num_threads(1)
    accelerator = make_accelerator()
    run = prepare(read_config(directory))
    for _ in train(run, directory, accelerator=accelerator):
        pass
    torch.save(run.model.state_dict(), directory / f"rank{accelerator.process_index}.pt")
    accelerator.end_training()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
