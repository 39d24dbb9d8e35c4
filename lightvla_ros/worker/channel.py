"""Messages between two processes: JSON and arrays through shared memory, a datagram to announce them.

Each side writes into memory of its own that the other has mapped, so an image is copied once and
nothing is pickled. The memory has no name: it is gone with the last process that knows it, however
that ends. Messages alternate, request then answer, so the memory is never written while it is read.
"""

from __future__ import annotations

import errno
import json
import mmap
import os
import socket
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

_ALIGNMENT = 64
_ANNOUNCEMENT = struct.Struct("<QQ")  # bytes of JSON, bytes of the message
_MAX_BYTES = 1 << 30

Arrays = Mapping[str, NDArray[Any]]


class ChannelClosed(Exception):  # noqa: N818 (an event, which callers turn into an error)
    """The other process is gone."""


class Channel:
    """One end of a connection.

    Args:
        connection: a connected SOCK_SEQPACKET socket, which keeps the bounds of messages.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._own: mmap.mmap | None = None
        self._peer: mmap.mmap | None = None

    def send(self, body: Mapping[str, Any], arrays: Arrays | None = None) -> None:
        """Send a message.

        Raises:
            ChannelClosed: nobody is there to receive it.
        """
        contiguous = {name: np.ascontiguousarray(array) for name, array in (arrays or {}).items()}
        places, size = _layout(contiguous)
        header = json.dumps({"body": body, "arrays": places}).encode()
        start = _aligned(len(header))
        descriptors = self._grow(start + size)
        assert self._own is not None
        try:
            self._own[: len(header)] = header
            for (*_, offset), array in zip(places, contiguous.values(), strict=True):
                view = np.frombuffer(self._own, array.dtype, array.size, start + offset)
                view.reshape(array.shape)[...] = array
            with _noticing_the_end():
                socket.send_fds(self._socket, [_ANNOUNCEMENT.pack(len(header), start + size)], descriptors)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def receive(self, timeout_s: float | None = None) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """Wait for a message.

        Returns:
            Its body and its arrays, read-only views that the next message overwrites.

        Raises:
            ChannelClosed: the other process is gone.
            TimeoutError: none came in time.
        """
        with _noticing_the_end():
            self._socket.settimeout(timeout_s)
            announcement, descriptors, _, _ = socket.recv_fds(self._socket, _ANNOUNCEMENT.size, 1)
        if not announcement:
            raise ChannelClosed
        header_size, size = _ANNOUNCEMENT.unpack(announcement)
        for descriptor in descriptors:
            # The old mapping lives as long as arrays that view it.
            self._peer = mmap.mmap(descriptor, os.fstat(descriptor).st_size, access=mmap.ACCESS_READ)
            os.close(descriptor)
        if self._peer is None or size > len(self._peer):
            raise ChannelClosed("a message without its memory")
        header = json.loads(self._peer[:header_size])
        start = _aligned(header_size)
        arrays = {
            name: np.frombuffer(self._peer, dtype, int(np.prod(shape)), start + offset).reshape(shape)
            for name, dtype, shape, offset in header["arrays"]
        }
        return header["body"], arrays

    def close(self) -> None:
        """Hang up; the other side notices, and so does a thread that waits here."""
        with suppress(OSError):  # closed before, or the other side was first
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _grow(self, size: int) -> list[int]:
        """Make the own memory large enough; returns what the other side must be given to see it."""
        if size > _MAX_BYTES:
            raise ValueError(f"a message of {size} bytes; at most {_MAX_BYTES} are allowed")
        if self._own is not None and size <= len(self._own):
            return []
        capacity = max(mmap.PAGESIZE, 1 << (size - 1).bit_length())
        descriptor = os.memfd_create("lightvla", os.MFD_CLOEXEC)
        os.ftruncate(descriptor, capacity)
        self._own = mmap.mmap(descriptor, capacity)
        return [descriptor]


@contextmanager
def _noticing_the_end() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.EPIPE, errno.ECONNRESET, errno.EBADF):  # by the other side, or by `close`
            raise ChannelClosed from error
        raise


def _layout(arrays: Arrays) -> tuple[list[tuple[str, str, tuple[int, ...], int]], int]:
    """Place arrays one after the other: (name, dtype, shape, offset) each, and the bytes of all."""
    places, offset = [], 0
    for name, array in arrays.items():
        places.append((name, array.dtype.str, array.shape, offset))
        offset += _aligned(array.nbytes)
    return places, offset


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT
