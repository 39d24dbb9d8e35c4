"""A toy training on disk: episodes, and a network to start from."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def toy_demonstrations(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six short episodes on disk."""
    from toy_training import make_demonstrations

    from lightvla_ros.learn.demonstrations import Episode, write_episode, write_meta

    directory = tmp_path_factory.mktemp("toy") / "demonstrations"
    data = make_demonstrations((12, 9, 10, 11, 9, 12))
    write_meta(directory, data.meta)
    for number, (begin, end) in enumerate(zip(data.episode_starts, data.episode_starts[1:], strict=False)):
        episode = Episode(
            images=data.images[begin:end],
            proprio=data.proprio[begin:end],
            actions=data.actions[begin:end],
            instruction_index=int(data.instruction_index[begin]),
        )
        write_episode(directory, number, episode)
    return directory


@pytest.fixture(scope="session")
def toy_start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of a fresh toy network, with the tokenizer of the demonstrations."""
    import torch
    from toy_training import INSTRUCTIONS, make_demonstrations, toy_sizes

    from lightvla_ros.learn.batches import action_statistics
    from lightvla_ros.learn.mini import initialize, policy_section, tokenizer_json, vocabulary
    from lightvla_ros.model import LightVla, save_checkpoint

    directory = tmp_path_factory.mktemp("toy") / "start"
    data = make_demonstrations()
    vocab = vocabulary(INSTRUCTIONS)
    torch.manual_seed(0)
    model = LightVla(toy_sizes(data.meta, len(vocab)), {"toy": action_statistics(data)})
    initialize(model)
    save_checkpoint(model, directory, extras={"policy": policy_section(data.meta)})
    (directory / "tokenizer.json").write_text(tokenizer_json(vocab))
    return directory
