import numpy as np
import pytest
import torch

from lightvla_ros.learn.batches import BatchSource, action_statistics, chunk_starts
from lightvla_ros.learn.demonstrations import DemonstrationMeta, Demonstrations

pytestmark = pytest.mark.filterwarnings("error")


def make_demonstrations(lengths: tuple[int, ...] = (12, 9), image_size: int = 16) -> Demonstrations:
    rng = np.random.default_rng(0)
    steps = sum(lengths)
    actions = rng.uniform(-0.5, 0.5, (steps, 7)).astype(np.float32)
    actions[:, 5] = 0.0
    actions[:, 6] = rng.integers(0, 2, steps)
    return Demonstrations(
        meta=DemonstrationMeta(
            world="toy",
            cameras=("third_person", "wrist"),
            image_size=image_size,
            action_names=("dx", "dy", "dz", "drx", "dry", "drz", "gripper"),
            proprio_dim=8,
            step_period_s=0.05,
            instructions=("take the cup", "take the red cup"),
        ),
        images=rng.integers(0, 256, (steps, 2, image_size, image_size, 3), dtype=np.uint8),
        proprio=rng.uniform(-1, 1, (steps, 8)).astype(np.float32),
        actions=actions,
        instruction_index=np.repeat(np.arange(len(lengths)), lengths).astype(np.int64),
        episode_starts=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
    )


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
    stream = source.stream(8, np.random.default_rng(0))
    drawn = torch.cat([next(stream).actions[:, 0, 0] for _ in range(20)])
    assert (drawn > 0.5).float().mean() > 0.3


def test_chunks_that_move_the_gripper_are_drawn_more_often_than_rest() -> None:
    data = make_demonstrations()
    data.actions[:] = 0.0
    data.actions[19, 6] = 1.0
    stream = make_source(data).stream(8, np.random.default_rng(0))
    grips = torch.cat([next(stream).actions[:, :, 6].amax(1) for _ in range(20)])
    assert (grips > 0.5).float().mean() > 0.5
