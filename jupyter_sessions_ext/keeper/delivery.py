"""What a client has received, and what it has sent that is not handled: known to the keeper too.

The server notes, in memory that both share, where in its connection's bytes each message ends. The
keeper has a duplicate of the connection's socket, which tells, when the server is gone, how many
bytes the client's system has acknowledged. Both are exact, and cost no system call for a message.
"""

from __future__ import annotations

import mmap
import os
import struct
import tempfile
from bisect import bisect_right
from typing import Final

CAPACITY: Final = 1 << 14
"""Messages that may be on their way to a client at once."""

INPUT_SIZE: Final = 1 << 20
"""Bytes of a client's requests that can be handed over; a longer one cannot."""

_ENTRY = struct.Struct("<QQ")
_U64 = struct.Struct("<Q")
_RECEIVED, _WRITTEN, _DONE, _TAKEN, _HANDLED, _HAS_INPUT, _HAS_BEGUN = range(0, 56, 8)
_ENTRIES = 64
_INPUT = _ENTRIES + CAPACITY * _ENTRY.size
_SIZE = _INPUT + INPUT_SIZE


class Delivery:
    """Memory about one connection.

    :param file: its descriptor, which is closed with this
    """

    def __init__(self, file: int) -> None:
        self.file = file
        self._memory = mmap.mmap(file, _SIZE)

    @classmethod
    def create(cls) -> Delivery:
        """Make the memory of a connection that is to be.

        It is no file on a disk: one that is full would end whoever writes to it.
        """
        if hasattr(os, "memfd_create"):
            file = os.memfd_create("delivery")
        else:
            with tempfile.TemporaryFile() as unnamed:
                file = os.dup(unnamed.fileno())
        os.ftruncate(file, _SIZE)
        return cls(file)

    def close(self) -> None:
        """Let go of it."""
        self._memory.close()
        os.close(self.file)

    # ------------------------------------------------------------------ the keeper

    def delivered(self, size: int | None) -> int | None:
        """Return the number of the last message that is within so many bytes of the connection.

        :param size: bytes that the client has acknowledged; None takes those that were written
        :returns: None when the connection had not begun
        """
        if not self._get(_HAS_BEGUN):
            return None
        size = self._get(_DONE) if size is None else size
        written = self._get(_WRITTEN)
        indices = range(max(0, written - CAPACITY + 1), written)  # one may be in the making
        count = bisect_right(indices, size, key=lambda index: self._entry(index)[1])
        return self._entry(indices[count - 1])[0] if count else self._get(_RECEIVED)

    def _entry(self, index: int) -> tuple[int, int]:
        number, end = _ENTRY.unpack_from(self._memory, _place(index))
        return number, end

    def unhandled(self, taken: int, unread: bytes) -> bytes | None:
        """Return what the client sent and the server did not handle, from a message's beginning.

        :param taken: bytes that the server took from the socket
        :param unread: those that came after them
        :returns: None when it is more than is kept
        """
        if not self._get(_HAS_INPUT):
            return None
        handled = self._get(_HANDLED)
        # It is noted that bytes are taken before they are: some may have been in the socket yet.
        taken = min(self._get(_TAKEN), taken)
        if taken - handled > INPUT_SIZE:
            return None
        start, size = _INPUT + handled % INPUT_SIZE, max(taken - handled, 0)
        first = self._memory[start : min(start + size, _SIZE)]
        return first + self._memory[_INPUT : _INPUT + size - len(first)] + unread

    # ------------------------------------------------------------------ the server

    def begin(self, received: int) -> None:
        """Begin to note what is sent.

        :param received: the number of the last message that the client has
        """
        if not self._get(_HAS_BEGUN):
            self._set(_RECEIVED, received)
            self._set(_HAS_BEGUN, 1)

    def write(self, number: int, end: int) -> None:
        """Note, before it is written, where a message will end."""
        written = self._get(_WRITTEN)
        _ENTRY.pack_into(self._memory, _place(written), number, end)
        self._set(_WRITTEN, written + 1)

    def wrote(self, size: int) -> None:
        """Note how many bytes were written to the connection."""
        self._set(_DONE, size)

    def begin_input(self, taken: int, left: bytes) -> None:
        """Begin to note what comes in.

        :param taken: bytes that were taken from the socket until now
        :param left: the end of them, which is not handled yet
        """
        self._put(taken - len(left), left)
        self._set(_TAKEN, taken)
        self._set(_HANDLED, taken - len(left))
        self._set(_HAS_INPUT, 1)

    def take(self, data: bytes | memoryview) -> None:
        """Note what is about to be taken from the socket."""
        taken = self._get(_TAKEN)
        self._put(taken, data)
        self._set(_TAKEN, taken + len(data))

    @property
    def taken(self) -> int:
        """Bytes that were taken from the socket."""
        return self._get(_TAKEN)

    def handle(self, size: int) -> None:
        """Note that so many bytes, from the connection's beginning, are handled."""
        self._set(_HANDLED, size)

    def _put(self, position: int, data: bytes | memoryview) -> None:
        if len(data) > INPUT_SIZE:
            return  # unhandled() tells that it is too much
        start = _INPUT + position % INPUT_SIZE
        room = _SIZE - start
        self._memory[start : start + min(room, len(data))] = data[:room]
        if len(data) > room:
            self._memory[_INPUT : _INPUT + len(data) - room] = data[room:]

    def _get(self, place: int) -> int:
        value: int = _U64.unpack_from(self._memory, place)[0]
        return value

    def _set(self, place: int, value: int) -> None:
        _U64.pack_into(self._memory, place, value)


def _place(index: int) -> int:
    return _ENTRIES + index % CAPACITY * _ENTRY.size
