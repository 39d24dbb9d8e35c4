"""A rosbag2 directory with MCAP storage, which `ros2 bag`, Foxglove and this package open."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from rosbags.highlevel import AnyReader, AnyReaderError
from rosbags.interfaces import (
    Connection,
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2 import ReaderError, StoragePlugin, Writer, WriterError
from rosbags.typesys import Stores, TypesysError, get_typestore

from lightvla_ros.core.errors import LightVlaError

# The standard messages are the same in every distribution since Humble.
_STORE = Stores.ROS2_HUMBLE
# The format of metadata.yaml that Humble's rosbag2 reads, and later ones too.
_VERSION: Literal[8] = 8
_FOREVER = QosTime(sec=2147483647, nsec=4294967295)


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicOffer:
    """What `ros2 bag play` needs to know to offer a topic as it was.

    Attributes:
        type_name: e.g. "sensor_msgs/msg/Image".
        is_reliable: whether its publishers were.
        is_latched: whether they kept their last message for late listeners.
    """

    type_name: str
    is_reliable: bool
    is_latched: bool


def check_free(directory: Path) -> None:
    """Check that a bag can be made at `directory`.

    Raises:
        LightVlaError: there is something.
    """
    if directory.exists():
        raise _taken(directory)


class BagWriter:
    """Write serialised messages into a new bag.

    Args:
        directory: made here; must not exist.

    Attributes:
        counts: topic -> messages written.
        num_bytes: of all messages.

    Raises:
        LightVlaError: there is something at `directory`.
        OSError: it cannot be made.
    """

    def __init__(self, directory: Path) -> None:
        self.counts: dict[str, int] = {}
        self.num_bytes = 0
        self._types = get_typestore(_STORE)
        self._connections: dict[str, Connection] = {}
        try:
            self._writer = Writer(directory, version=_VERSION, storage_plugin=StoragePlugin.MCAP)
            self._writer.open()
        except WriterError as error:
            raise _taken(directory) from error

    def __enter__(self) -> BagWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def add_topic(self, topic: str, offer: TopicOffer) -> None:
        """Announce a topic before its first message.

        Raises:
            LightVlaError: its type is none of ROS 2's standard messages.
        """
        try:
            self._connections[topic] = self._writer.add_connection(
                topic, offer.type_name, typestore=self._types, offered_qos_profiles=[_qos(offer)]
            )
        except (TypesysError, KeyError) as error:
            raise LightVlaError(
                f"topic {topic}",
                got=f"messages of {offer.type_name}",
                expected="a standard message of ROS 2",
                fix="record it beside this with `ros2 bag record`",
            ) from error
        self.counts[topic] = 0

    def write(self, topic: str, data: bytes, time_ns: int) -> None:
        """Append a message in CDR that came at `time_ns`.

        Raises:
            KeyError: the topic was not added.
            OSError: the disk is full or gone.
        """
        self._writer.write(self._connections[topic], time_ns, data)
        self.counts[topic] += 1
        self.num_bytes += len(data)

    def close(self) -> None:
        """Write the index; without it a bag cannot be read."""
        self._writer.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class BagMessage:
    """A message as it was recorded.

    Attributes:
        topic: full name.
        type_name: e.g. "sensor_msgs/msg/Image".
        time_ns: when it came.
        data: in CDR.
    """

    topic: str
    type_name: str
    time_ns: int
    data: bytes


class BagReader:
    """Read a bag, whoever recorded it; a context.

    Args:
        directory: the bag.

    Raises:
        LightVlaError: it is none, or was not closed.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        try:
            self._reader = AnyReader([directory], default_typestore=get_typestore(_STORE))
            self._reader.open()
        except (AnyReaderError, ReaderError, OSError, ValueError) as error:
            raise LightVlaError(
                f"recording {directory}",
                got=str(error),
                expected="a rosbag2 directory: metadata.yaml beside its .mcap or .db3",
                fix="check the path; `ros2 bag reindex` mends a bag whose recording was cut off",
            ) from error

    def __enter__(self) -> BagReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._reader.close()

    @property
    def topics(self) -> Mapping[str, str]:
        """Topic -> type of its messages."""
        return {connection.topic: connection.msgtype for connection in self._reader.connections}

    def messages(self, topics: set[str]) -> Iterator[BagMessage]:
        """Yield the messages of some topics in the order they came."""
        connections = [entry for entry in self._reader.connections if entry.topic in topics]
        if not connections:  # to the library, no connections are all
            return
        for connection, time_ns, data in self._reader.messages(connections):
            yield BagMessage(
                topic=connection.topic, type_name=connection.msgtype, time_ns=time_ns, data=bytes(data)
            )

    def decoded(self, message: BagMessage) -> Any:
        """Decode a message; arrays become NumPy's.

        Raises:
            LightVlaError: the data is not what its type says.
        """
        try:
            return self._reader.deserialize(message.data, message.type_name)
        except Exception as error:  # the library raises whatever its generated code runs into
            raise LightVlaError(
                f"message on {message.topic} of {self.directory}",
                got=f"{len(message.data)} bytes ({type(error).__name__}: {error})",
                expected=f"a {message.type_name}",
                fix="the recording is damaged here; record again",
            ) from error


def _qos(offer: TopicOffer) -> Qos:
    return Qos(
        history=QosHistory.KEEP_LAST,
        depth=1 if offer.is_latched else 10,
        reliability=QosReliability.RELIABLE if offer.is_reliable else QosReliability.BEST_EFFORT,
        durability=QosDurability.TRANSIENT_LOCAL if offer.is_latched else QosDurability.VOLATILE,
        deadline=_FOREVER,
        lifespan=_FOREVER,
        liveliness=QosLiveliness.AUTOMATIC,
        liveliness_lease_duration=_FOREVER,
        avoid_ros_namespace_conventions=False,
    )


def _taken(directory: Path) -> LightVlaError:
    return LightVlaError(
        f"recording {directory}",
        got="something that is already there",
        expected="a folder yet to be made",
        fix="choose another --out",
    )
