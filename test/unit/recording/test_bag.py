"""A bag gives back what was written, to this package and to any other reader."""

from __future__ import annotations

from pathlib import Path

import pytest
from bag_maker import text_message
from rosbags.rosbag2 import Reader

from lightvla_ros.core.errors import LightVlaError
from lightvla_ros.recording.bag import BagMessage, BagReader, BagWriter, TopicOffer

TEXT = TopicOffer(type_name="std_msgs/msg/String", is_reliable=True, is_latched=True)
IMAGE = TopicOffer(type_name="sensor_msgs/msg/Image", is_reliable=False, is_latched=False)


@pytest.fixture
def bag(tmp_path: Path) -> Path:
    with BagWriter(tmp_path / "bag") as writer:
        writer.add_topic("/a", TEXT)
        writer.add_topic("/b", TEXT)
        writer.add_topic("/never", IMAGE)
        for number in range(3):
            writer.write("/a", text_message(f"a{number}"), 1000 + number)
        writer.write("/b", text_message("b"), 1001)
    return tmp_path / "bag"


def test_messages_come_back_byte_for_byte_in_the_order_they_came(bag: Path) -> None:
    with BagReader(bag) as reader:
        messages = list(reader.messages({"/a", "/b"}))
        assert [(message.topic, message.time_ns) for message in messages] == [
            ("/a", 1000),
            ("/a", 1001),
            ("/b", 1001),
            ("/a", 1002),
        ]
        assert messages[0].data == text_message("a0")
        assert reader.decoded(messages[3]).data == "a2"
        assert set(reader.topics) == {"/a", "/b", "/never"}


def test_only_the_topics_asked_for_are_read(bag: Path) -> None:
    with BagReader(bag) as reader:
        assert [message.topic for message in reader.messages({"/b"})] == ["/b"]
        assert not list(reader.messages(set()))
        assert not list(reader.messages({"/nowhere"}))


def test_the_writer_counts(tmp_path: Path) -> None:
    with BagWriter(tmp_path / "bag") as writer:
        writer.add_topic("/a", TEXT)
        writer.add_topic("/b", TEXT)
        writer.write("/a", text_message("x"), 1)
        assert writer.counts == {"/a": 1, "/b": 0}
        assert writer.num_bytes == len(text_message("x"))


def test_any_rosbag2_reader_opens_it_and_finds_the_quality_of_service(bag: Path) -> None:
    with Reader(bag) as reader:
        assert reader.message_count == 4
        offered = {
            connection.topic: (profile.reliability.name, profile.durability.name)
            for connection in reader.connections
            for profile in connection.ext.offered_qos_profiles
        }
    assert offered["/a"] == ("RELIABLE", "TRANSIENT_LOCAL")
    assert offered["/never"] == ("BEST_EFFORT", "VOLATILE")
    assert "storage_identifier: mcap" in (bag / "metadata.yaml").read_text(encoding="utf-8")


def test_a_recording_never_overwrites_another(bag: Path) -> None:
    with pytest.raises(LightVlaError, match="already there.*choose another --out"):
        BagWriter(bag)


def test_a_type_that_is_not_standard_is_refused_by_name(tmp_path: Path) -> None:
    own = TopicOffer(type_name="my_msgs/msg/Mine", is_reliable=True, is_latched=False)
    with (
        BagWriter(tmp_path / "bag") as writer,
        pytest.raises(LightVlaError, match="topic /m; got messages of my_msgs"),
    ):
        writer.add_topic("/m", own)


@pytest.mark.parametrize("spoil", ["absent", "empty", "file", "cut off"])
def test_what_is_no_bag_is_refused_with_what_to_do(bag: Path, tmp_path: Path, spoil: str) -> None:
    path = tmp_path / "other"
    if spoil == "empty":
        path.mkdir()
    elif spoil == "file":
        path.write_text("hello", encoding="utf-8")
    elif spoil == "cut off":
        path = bag
        (storage,) = bag.glob("*.mcap")
        storage.write_bytes(storage.read_bytes()[:-100])
    with pytest.raises(LightVlaError, match="expected a rosbag2 directory.*Fix: check the path"):
        BagReader(path)


def test_a_damaged_message_is_refused_by_topic(bag: Path) -> None:
    with BagReader(bag) as reader:
        damaged = BagMessage(topic="/a", type_name="std_msgs/msg/String", time_ns=1, data=b"\0\1\0\0\xff")
        with pytest.raises(LightVlaError, match=r"message on /a of .*5 bytes.*the recording is damaged here"):
            reader.decoded(damaged)
