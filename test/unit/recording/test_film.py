"""Films and strips of moments drawn from recordings."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from bag_maker import Bags, picture, record

from lightvla_ros.core.errors import LightVlaError
from lightvla_ros.recording.bag import BagReader
from lightvla_ros.recording.film import Span, draw_film, draw_moments
from lightvla_ros.view.layout import draw_record, draw_strip
from lightvla_ros.view.video import count_frames

WHOLE = Span()


def drawn(number: int) -> np.ndarray:
    return draw_record(record(number), {name: picture(number) for name in record(number).cameras})


def frames_of(path: Path) -> list[np.ndarray]:
    video = cv2.VideoCapture(str(path))
    frames = []
    while (read := video.read())[0]:
        frames.append(read[1][..., ::-1])
    return frames


def test_a_film_plays_at_the_speed_at_which_things_happened(bags: Bags, tmp_path: Path) -> None:
    path = tmp_path / "film.mp4"
    with BagReader(bags.make([record(number) for number in (0, 1, 4)])) as bag:
        # A tenth of a second, then three tenths, then the last for a second.
        assert draw_film(bag, path, span=WHOLE, fps=20.0) == 2 + 6 + 20
    frames = frames_of(path)
    shown = [
        int(np.argmin([np.abs(frame - drawn(n).astype(int)).mean() for n in (0, 1, 4)])) for frame in frames
    ]
    assert shown == [0] * 2 + [1] * 6 + [2] * 20


def test_a_long_pause_is_shown_for_a_second(bags: Bags, tmp_path: Path) -> None:
    with BagReader(bags.make([record(0), record(900)])) as bag:
        assert draw_film(bag, tmp_path / "film.mp4", span=WHOLE, fps=10.0) == 10 + 10


def test_an_animation_has_the_same_frames(bags: Bags, tmp_path: Path) -> None:
    path = tmp_path / "film.gif"
    with BagReader(bags.make([record(number) for number in range(4)])) as bag:
        number = draw_film(bag, path, span=WHOLE, fps=10.0, width=128)
    assert number == count_frames(path) == 3 + 10
    assert frames_of(path)[0].shape[1] == 128


def test_a_span_is_cut_out(bags: Bags, tmp_path: Path) -> None:
    with BagReader(bags.make([record(number) for number in range(9)])) as bag:
        span = Span(begin_s=0.15, end_s=0.45)
        assert draw_film(bag, tmp_path / "film.mp4", span=span, fps=10.0) == 2 + 10


def test_a_strip_shows_moments_of_the_longest_instruction(bags: Bags, tmp_path: Path) -> None:
    path = tmp_path / "strip.png"
    first = [record(number, epoch=1, instruction="short") for number in range(2)]
    second = [record(number, epoch=2, instruction="long") for number in range(2, 9)]
    with BagReader(bags.make([*first, *second])) as bag:
        assert draw_moments(bag, path, span=WHOLE, moments=3) == 3
    chosen = [second[0], second[3], second[6]]
    numbers = (2, 5, 8)
    expected = draw_strip(
        [
            (entry, {name: picture(n) for name in entry.cameras})
            for entry, n in zip(chosen, numbers, strict=True)
        ]
    )
    np.testing.assert_array_equal(cv2.imread(str(path))[..., ::-1], expected)


def test_a_strip_of_more_moments_than_there_are_shows_each_once(bags: Bags, tmp_path: Path) -> None:
    with BagReader(bags.make([record(0), record(1)])) as bag:
        assert draw_moments(bag, tmp_path / "strip.png", span=WHOLE, moments=50) == 2


def test_moments_that_lack_an_image_make_room_for_others(bags: Bags, tmp_path: Path) -> None:
    lost = {"wrist": {0, 8}}
    with BagReader(bags.make([record(number) for number in range(9)], lost=lost)) as bag:
        assert draw_moments(bag, tmp_path / "strip.png", span=WHOLE, moments=5) == 5


@pytest.mark.parametrize("name", ["film.mp4", "strip.png"])
def test_nothing_to_show_is_told_with_what_there_is(bags: Bags, tmp_path: Path, name: str) -> None:
    lost = {"wrist": {0, 1, 2}}
    with BagReader(bags.make([record(number) for number in range(3)], lost=lost)) as bag:
        message = r"got 3 of its 3 inferences, which span 0.2 s.*none of them with all its images"
        with pytest.raises(LightVlaError, match=message):
            if name == "film.mp4":
                draw_film(bag, tmp_path / name, span=WHOLE, fps=10.0)
            else:
                draw_moments(bag, tmp_path / name, span=WHOLE, moments=2)
        with pytest.raises(LightVlaError, match=r"got 0 of its 3 inferences.*between 7 and inf s"):
            draw_film(bag, tmp_path / "x.mp4", span=Span(begin_s=7.0), fps=10.0)


def test_a_film_of_another_ending_is_refused(bags: Bags, tmp_path: Path) -> None:
    with (
        BagReader(bags.make([record(0)])) as bag,
        pytest.raises(LightVlaError, match=r"expected \.mp4 or \.gif"),
    ):
        draw_film(bag, tmp_path / "film.avi", span=WHOLE, fps=10.0)
