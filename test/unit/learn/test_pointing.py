import numpy as np
import pytest
import torch

from lightvla_ros.learn.pointing import PointingHead, colour_shares, named_colour

RGB = {"red": (200, 20, 20), "yellow": (220, 180, 0), "green": (10, 140, 30), "blue": (15, 40, 210)}
WOOD = (212, 170, 118)


@pytest.mark.parametrize(
    ("instruction", "colour"),
    [("Pick up the RED cube", "red"), ("put the yellow can on the red plate", "yellow"), ("go home", "")],
)
def test_an_instruction_points_at_the_first_colour_it_names(instruction: str, colour: str) -> None:
    assert named_colour(instruction) == colour


@pytest.mark.parametrize("colour", RGB)
def test_only_the_patches_of_the_named_colour_count(colour: str) -> None:
    image = np.full((16, 16, 3), WOOD, dtype=np.uint8)
    for quarter, rgb in enumerate(RGB.values()):
        row, column = divmod(quarter, 2)
        image[8 * row : 8 * row + 4, 8 * column : 8 * column + 4] = rgb
    shares = colour_shares(image, colour, side=4).reshape(4, 4)
    row, column = divmod(list(RGB).index(colour), 2)
    expected = np.zeros((4, 4))
    expected[2 * row, 2 * column] = 1.0
    assert shares.tolist() == expected.tolist()


def test_a_patch_that_shows_a_little_counts_a_little() -> None:
    image = np.full((8, 8, 3), WOOD, dtype=np.uint8)
    image[0, :8] = RGB["red"]
    assert colour_shares(image, "red", side=1).tolist() == [0.5]
    assert colour_shares(image, "", side=1).tolist() == [0.0]


def test_patches_need_not_be_whole_pixels() -> None:
    image = np.full((10, 10, 3), WOOD, dtype=np.uint8)
    image[:, :5] = RGB["red"]
    assert colour_shares(image, "red", side=4).reshape(4, 4).tolist() == [[1.0, 1.0, 0.0, 0.0]] * 4


def test_the_head_learns_to_point() -> None:
    torch.manual_seed(0)
    head, hidden = PointingHead(4), torch.eye(4)[None]
    shares = torch.tensor([[0.0, 1.0, 0.0, 0.0]])
    optimizer = torch.optim.Adam(head.parameters(), lr=0.1)
    before = head.loss(hidden, shares).item()
    for _ in range(100):
        optimizer.zero_grad()
        head.loss(hidden, shares).backward()
        optimizer.step()
    assert head.loss(hidden, shares).item() < 0.1 * before
    assert int(head.linear(hidden).squeeze().argmax()) == 1
