"""Pairs: newest first, within the skew, never twice."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lightvla_ros.core.frame_pairing import Frame, FramePairing

IMAGE = np.zeros((2, 2, 3), dtype=np.uint8)
CAMERAS = ("third_person", "wrist")


def frame(stamp_ns: int) -> Frame:
    return Frame(image=IMAGE, stamp_ns=stamp_ns)


def test_two_frames_of_one_moment_are_a_pair() -> None:
    pairing = FramePairing(CAMERAS, max_skew_ns=30)
    assert pairing.add("third_person", frame(100)) is None
    pair = pairing.add("wrist", frame(110))
    assert pair is not None
    assert pair.stamp_ns == 100
    assert {name: one.stamp_ns for name, one in pair.frames.items()} == {"third_person": 100, "wrist": 110}


def test_a_frame_waits_for_its_partner_of_the_same_moment() -> None:
    pairing = FramePairing(CAMERAS, max_skew_ns=30)
    pairing.add("third_person", frame(100))
    pairing.add("wrist", frame(100))
    assert pairing.add("third_person", frame(150)) is None, "the wrist image of 100 is too old for it"
    pair = pairing.add("wrist", frame(150))
    assert pair is not None and pair.stamp_ns == 150


def test_frames_count_as_unpaired_once_they_are_forgotten_without_a_partner() -> None:
    pairing = FramePairing(CAMERAS, max_skew_ns=10)
    for stamp in range(0, 2000, 100):
        pairing.add("third_person", frame(stamp))
        if stamp % 200 == 0:
            pairing.add("wrist", frame(stamp))
    # 20 frames, of which 12 are forgotten; every second one had a partner.
    assert pairing.unpaired == 6


def test_the_nearest_skew_is_what_a_person_must_allow_for_pairs() -> None:
    pairing = FramePairing(CAMERAS, max_skew_ns=10)
    pairing.add("third_person", frame(0))
    assert pairing.nearest_skew_ns() is None
    assert pairing.add("wrist", frame(0)) is not None, "a pair of the past is no hint"
    for stamp in (100, 200, 300):
        pairing.add("third_person", frame(stamp))
        pairing.add("wrist", frame(stamp + 40))
    assert pairing.nearest_skew_ns() == 40
    pairing.max_skew_ns = 40
    assert pairing.add("wrist", frame(300)) is not None


def test_a_slow_camera_finds_the_older_frame_it_belongs_to() -> None:
    pairing = FramePairing(CAMERAS, max_skew_ns=10)
    for stamp in (100, 150, 200):
        pairing.add("third_person", frame(stamp))
    pair = pairing.add("wrist", frame(150))
    assert pair is not None and pair.frames["third_person"].stamp_ns == 150


def test_a_pair_is_returned_once() -> None:
    pairing = FramePairing(CAMERAS, max_skew_ns=30)
    pairing.add("third_person", frame(100))
    assert pairing.add("wrist", frame(100)) is not None
    assert pairing.add("wrist", frame(105)) is None, "the third-person frame was used already"


def test_one_camera_is_a_pair_by_itself() -> None:
    pair = FramePairing(("wrist",), max_skew_ns=0).add("wrist", frame(7))
    assert pair is not None and pair.stamp_ns == 7


def test_after_clear_older_stamps_are_taken_again() -> None:
    pairing = FramePairing(("wrist",), max_skew_ns=0)
    pairing.add("wrist", frame(1000))
    assert pairing.add("wrist", frame(10)) is None
    pairing.clear()
    assert pairing.add("wrist", frame(10)) is not None


def test_an_observation_carries_the_stamp_of_every_image() -> None:
    pairing = FramePairing(CAMERAS, max_skew_ns=30)
    pairing.add("third_person", frame(100))
    pair = pairing.add("wrist", frame(110))
    assert pair is not None
    observation = pair.observation(proprio=np.zeros(8), instruction="go", epoch=3)
    assert (observation.stamp_ns, observation.epoch, observation.instruction) == (100, 3, "go")
    assert observation.image_stamps_ns == {"third_person": 100, "wrist": 110}


@given(st.lists(st.tuples(st.sampled_from(CAMERAS), st.integers(0, 500)), max_size=60), st.integers(0, 60))
def test_pairs_are_within_the_skew_and_only_get_newer(frames: list[tuple[str, int]], skew: int) -> None:
    pairing = FramePairing(CAMERAS, max_skew_ns=skew)
    pairs = [pair for camera, stamp in frames if (pair := pairing.add(camera, frame(stamp))) is not None]
    for pair in pairs:
        stamps = [one.stamp_ns for one in pair.frames.values()]
        assert max(stamps) - min(stamps) <= skew and pair.stamp_ns == min(stamps)
    order = [pair.stamp_ns for pair in pairs]
    assert order == sorted(set(order))
