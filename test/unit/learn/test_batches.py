import numpy as np
import pytest
import torch
from toy_training import make_demonstrations

from lightvla_ros.core.errors import ConfigError
from lightvla_ros.learn.batches import BatchSource, action_statistics, chunk_starts
from lightvla_ros.learn.demonstrations import Demonstrations

pytestmark = pytest.mark.filterwarnings("error")


def make_source(demonstrations: Demonstrations) -> BatchSource:
    return BatchSource(
        demonstrations,
        statistics=action_statistics(demonstrations),
        token_ids=[[1, 4, 5, 6], [1, 4, 5, 7, 6]],
        chunk_size=8,
        grid_size=8,
    )


def test_a_chunk_never_starts_where_its_episode_ends_before_it() -> None:
    starts = chunk_starts(np.array([0, 12, 19, 27]), chunk_size=8)
    assert starts.tolist() == [0, 1, 2, 3, 4, 19]


def test_a_dimension_that_hardly_moves_keeps_a_wide_range() -> None:
    action = action_statistics(make_demonstrations())["action"]
    assert (action["q01"][5], action["q99"][5]) == pytest.approx((-0.3, 0.3))
    assert action["q99"][0] - action["q01"][0] > 0.5
    assert action["mask"] == [True] * 6 + [False]


def test_a_batch_holds_what_was_demonstrated() -> None:
    data = make_demonstrations()
    batch = make_source(data).batch(np.array([1, 12]))
    assert batch.pixel_values.shape == (2, 6, 16, 16)
    assert batch.input_ids.tolist() == [[1, 4, 5, 6, 0], [1, 4, 5, 7, 6]]
    assert batch.prompt_mask.tolist() == [[True, True, True, False], [True] * 4]
    assert torch.equal(batch.actions[0, :, 6], torch.from_numpy(data.actions[1:9, 6]))
    assert batch.actions[..., :6].abs().max() <= 1.0


def test_fast_motion_is_drawn_more_often_than_rest() -> None:
    data = make_demonstrations()
    data.actions[:, 6] = 1.0
    data.actions[:, :2] = 0.0
    data.actions[12, 0] = 0.5
    source = make_source(data)
    assert len(source) == 5 + 2
    rng = np.random.default_rng(0)
    drawn = torch.cat([source.draw(8, rng).actions[:, 0, 0] for _ in range(20)])
    assert (drawn > 0.5).float().mean() > 0.3


def test_chunks_that_move_the_gripper_are_drawn_more_often_than_rest() -> None:
    data = make_demonstrations()
    data.actions[:] = 0.0
    data.actions[19, 6] = 1.0
    source, rng = make_source(data), np.random.default_rng(0)
    grips = torch.cat([source.draw(8, rng).actions[:, :, 6].amax(1) for _ in range(20)])
    assert (grips > 0.5).float().mean() > 0.5


def test_batches_come_from_the_chosen_episodes_alone() -> None:
    assert chunk_starts(np.array([0, 12, 19, 27]), chunk_size=8, episodes=[2]).tolist() == [19]


def test_episodes_that_are_all_shorter_than_a_chunk_are_refused() -> None:
    with pytest.raises(ConfigError, match="no episode of 8 steps.*Fix: record longer episodes"):
        make_source(make_demonstrations((7, 5)))


def test_a_batch_falls_into_parts_that_hold_all_of_it() -> None:
    batch = make_source(make_demonstrations()).batch(np.array([0, 1, 2, 12, 13]))
    parts = list(batch.split(2))
    assert [len(part.actions) for part in parts] == [2, 2, 1]
    assert torch.equal(torch.cat([part.pixel_values for part in parts]), batch.pixel_values)
