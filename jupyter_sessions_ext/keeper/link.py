"""The keeper's end of a connection with a server."""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import struct
from collections import deque
from collections.abc import Callable, Sequence

from .loop import Loop
from .protocol import Packet, Unpacker, receive

_SIZE = 1 << 16
"""Bytes that are received at once; of more, memory would be mapped and unmapped each time."""


class Link:
    """A connection: packets go both ways, and files come in.

    :param receive: is given each packet
    :param ended: is called when it is over
    """

    def __init__(
        self,
        loop: Loop,
        connection: socket.socket,
        receive: Callable[[Link, Packet], object],
        ended: Callable[[Link, str], object],
    ) -> None:
        self._loop = loop
        self._socket = connection
        self._receive = receive
        self._ended = ended
        self._unpacker = Unpacker()
        self._unsent: deque[memoryview] = deque()
        self._files: deque[int] = deque()
        self.process = process_of(connection)
        """The id of the process at the other end; None: it is not known."""
        self.is_open = True
        connection.setblocking(False)
        loop.watch(connection, self._ready)

    @property
    def is_held_up(self) -> bool:
        """Whether the other end takes nothing at present."""
        return bool(self._unsent)

    def take_file(self) -> int | None:
        """Return the descriptor that came first and was not taken; whoever takes it closes it."""
        return self._files.popleft() if self._files else None

    def send_files(self, packet: bytes, files: Sequence[int]) -> None:
        """Send a packet with descriptors, at once: all that was sent before is taken.

        :raises OSError: it cannot be sent
        """
        sent = socket.send_fds(self._socket, [packet], [*files])
        if sent < len(packet):
            self.send(packet[sent:])

    def send(self, packet: bytes) -> None:
        """Send a packet, now or as soon as it can be."""
        if self.is_open:
            self._unsent.append(memoryview(packet))
            if len(self._unsent) == 1:
                self._flush()

    def _flush(self) -> None:
        try:
            while self._unsent:
                sent = self._socket.send(self._unsent[0])
                if sent < len(self._unsent[0]):
                    self._unsent[0] = self._unsent[0][sent:]
                else:
                    self._unsent.popleft()
        except BlockingIOError:
            self._loop.watch_writing(self._socket, True)
        except OSError:
            # What the other end has sent before its end is still to be read.
            self._unsent.clear()

    def _ready(self, events: int) -> None:
        if events & selectors.EVENT_WRITE:
            self._flush()
            if not self._unsent:
                self._loop.watch_writing(self._socket, False)
        if events & selectors.EVENT_READ:
            self._read()

    def _read(self) -> None:
        try:
            data, files = receive(self._socket, _SIZE)
        except BlockingIOError:
            return
        except OSError as error:
            self.close(str(error))
            return
        self._files.extend(files)
        if not data:
            self.close("it was closed")
            return
        try:
            for packet in self._unpacker.feed(data):
                if self.is_open:
                    self._receive(self, packet)
        except Exception as error:  # whatever is sent here must not end who keeps all kernels
            self.close(f"{type(error).__name__}: {error}")

    def close(self, reason: str) -> None:
        """End it."""
        if self.is_open:
            self.is_open = False
            self._loop.forget(self._socket)
            self._socket.close()
            self._unsent.clear()
            while (file := self.take_file()) is not None:
                with contextlib.suppress(OSError):
                    os.close(file)
            self._ended(self, reason)


def process_of(connection: socket.socket) -> int | None:
    """Return the id of the process at the other end of a unix socket; None: it is not told."""
    if not hasattr(socket, "SO_PEERCRED"):
        return None
    size = struct.calcsize("3i")
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    return struct.unpack("3i", credentials)[0] or None


def user_of(connection: socket.socket) -> int:
    """Return the id of the user at the other end of a unix socket.

    :raises OSError: it cannot be told
    """
    if hasattr(socket, "SO_PEERCRED"):
        size = struct.calcsize("3i")
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
        return int(struct.unpack("3i", credentials)[1])
    # LOCAL_PEERCRED of macOS and the BSDs: struct xucred begins with a version and the user.
    return int(struct.unpack_from("=II", connection.getsockopt(0, 1, 76))[1])
