"""Messages through shared memory arrive whole, grow with their content, and end with the other side."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from lightvla_ros.worker.channel import Channel, ChannelClosed

TIMEOUT_S = 5.0


def pair() -> tuple[Channel, Channel]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return Channel(ours), Channel(theirs)


@pytest.fixture
def channels() -> Iterator[tuple[Channel, Channel]]:
    ends = pair()
    yield ends
    for end in ends:
        end.close()


def test_body_and_arrays_arrive_as_they_were_sent(channels: tuple[Channel, Channel]) -> None:
    sender, receiver = channels
    arrays = {
        "image": np.arange(48 * 64 * 3, dtype=np.uint8).reshape(48, 64, 3),
        "proprio": np.array([1.5, -0.25]),
        "mask": np.eye(4, dtype=bool),
        "nothing": np.zeros((0, 7), dtype=np.float32),
    }
    sender.send({"instruction": "pick up ▁", "stamp_ns": 2**62}, arrays)
    body, received = receiver.receive(TIMEOUT_S)
    assert body == {"instruction": "pick up ▁", "stamp_ns": 2**62}
    assert list(received) == list(arrays)
    for name, array in arrays.items():
        assert received[name].dtype == array.dtype
        np.testing.assert_array_equal(received[name], array)


def test_a_view_with_gaps_is_sent_as_it_looks(channels: tuple[Channel, Channel]) -> None:
    image = np.arange(600, dtype=np.uint8).reshape(10, 20, 3)
    channels[0].send({}, {"image": image[::2, ::-1]})
    np.testing.assert_array_equal(channels[1].receive(TIMEOUT_S)[1]["image"], image[::2, ::-1])


@settings(max_examples=30, deadline=None)
@given(st.lists(hnp.arrays(np.uint8, hnp.array_shapes(max_dims=3, max_side=90)), min_size=1, max_size=6))
def test_messages_of_any_size_follow_each_other_in_both_directions(images: list[np.ndarray]) -> None:
    one, other = pair()
    for index, image in enumerate(images):
        one.send({"index": index}, {"image": image})
        body, arrays = other.receive(TIMEOUT_S)
        assert body == {"index": index}
        np.testing.assert_array_equal(arrays["image"], image)
        other.send({}, {"negative": 255 - arrays["image"]})
        np.testing.assert_array_equal(one.receive(TIMEOUT_S)[1]["negative"], 255 - image)
    one.close()
    other.close()


def test_memory_grows_only_with_the_largest_message(channels: tuple[Channel, Channel]) -> None:
    sender, receiver = channels
    for side in (10, 200, 10, 200, 150):
        sender.send({}, {"image": np.zeros((side, side), np.uint8)})
        receiver.receive(TIMEOUT_S)
        memory = sender._own
        if side == 200:
            grown = memory
    assert memory is grown


def test_received_arrays_cannot_be_written(channels: tuple[Channel, Channel]) -> None:
    channels[0].send({}, {"x": np.zeros(3)})
    _, arrays = channels[1].receive(TIMEOUT_S)
    with pytest.raises(ValueError, match="read-only"):
        arrays["x"][0] = 1.0


def test_waiting_ends_when_the_other_side_is_gone(channels: tuple[Channel, Channel]) -> None:
    one, other = channels
    threading.Timer(0.05, one.close).start()
    with pytest.raises(ChannelClosed):
        other.receive(TIMEOUT_S)
    with pytest.raises(ChannelClosed):
        other.send({})


def test_waiting_ends_when_nothing_comes(channels: tuple[Channel, Channel]) -> None:
    with pytest.raises(TimeoutError):
        channels[0].receive(0.01)


def test_a_message_beyond_the_limit_is_refused(channels: tuple[Channel, Channel]) -> None:
    huge = np.broadcast_to(np.zeros(1, np.uint8), (1 << 30) + 1)
    with pytest.raises(ValueError, match="at most"):
        channels[0]._grow(huge.nbytes)
