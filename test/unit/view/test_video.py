"""Frames written to a video or a picture come back."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from lightvla_ros.core.errors import LightVlaError
from lightvla_ros.view.video import VideoFile, count_frames, write_picture

RED = np.full((64, 96, 3), (200, 10, 10), np.uint8)


def test_a_video_plays_as_many_frames_as_were_written(tmp_path: Path) -> None:
    with VideoFile(tmp_path / "red.mp4", fps=10.0) as video:
        for _ in range(12):
            video.write(RED)
    assert video.num_frames == count_frames(video.path) == 12


def test_a_video_keeps_the_colours(tmp_path: Path) -> None:
    with VideoFile(tmp_path / "red.mp4", fps=10.0) as video:
        video.write(RED)
    readable, frame = cv2.VideoCapture(str(video.path)).read()
    assert readable
    np.testing.assert_allclose(frame[..., ::-1].mean((0, 1)), RED.mean((0, 1)), atol=12)


def test_a_picture_is_the_frame(tmp_path: Path) -> None:
    write_picture(tmp_path / "red.png", RED)
    np.testing.assert_array_equal(cv2.imread(str(tmp_path / "red.png"))[..., ::-1], RED)


def test_a_video_in_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LightVlaError, match="choose another --out"):
        VideoFile(tmp_path / "nowhere" / "red.mp4", fps=10.0).write(RED)


def test_a_picture_in_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LightVlaError, match="choose another --out"):
        write_picture(tmp_path / "nowhere" / "red.png", RED)


@pytest.mark.parametrize("name", ["red", "red.avi", "red.xyz"])
def test_a_picture_of_an_unknown_kind_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(LightVlaError, match="an ending such as .png"):
        write_picture(tmp_path / name, RED)
