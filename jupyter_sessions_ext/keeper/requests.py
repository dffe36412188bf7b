"""What clients have asked a server and it has not answered: known to the keeper too, should it end.

The server notes, in memory that both share, what each of its connections has received of a request
before it takes it from the socket, and how much it had written by then.
"""

from __future__ import annotations

import mmap
import os
import struct
from typing import Final, NamedTuple

PLACES: Final = 512
"""Connections of which something can be noted at once."""

MOST: Final = (1 << 14) - 32
"""Bytes of a request that are noted; of a longer one it is known that it is."""

HEAD_END: Final = b"\r\n\r\n"
"""What stands behind a request's head."""

_HEAD = struct.Struct("<QQQQ")
_SIZE: Final = PLACES * (_HEAD.size + MOST)


class Begun(NamedTuple):
    """A request, as far as it was noted."""

    written: int
    """Bytes that the server had written to the connection before."""
    start: int
    """Where it begins in the bytes that the connection has received."""
    size: int
    """Bytes that were received of it; 0: the last was answered."""
    data: bytes
    """The first of them."""
    is_repeated: bool
    """Whether a server has ended already while it handled it."""


class Requests:
    """The memory.

    :param file: its descriptor, which is closed with this
    """

    def __init__(self, file: int) -> None:
        self.file = file
        self._memory = mmap.mmap(file, _SIZE)

    @classmethod
    def create(cls) -> Requests:
        """Make it.

        :raises AttributeError: the system has no such memory
        """
        file = os.memfd_create("requests")
        os.ftruncate(file, _SIZE)
        return cls(file)

    def close(self) -> None:
        """Let go of it."""
        self._memory.close()
        os.close(self.file)

    def begin(self, place: int, written: int, start: int, is_repeated: bool = False) -> None:
        """Note that what a connection had received until now is answered.

        :param is_repeated: what comes next was asked before
        """
        # The server may be killed in between: where nothing was taken since, nothing is begun.
        _HEAD.pack_into(self._memory, _offset(place), start, written, 0, is_repeated)

    def add(self, place: int, data: bytes | memoryview) -> None:
        """Note what is about to be taken from a connection's socket."""
        offset = _offset(place)
        start, written, size, is_repeated = _HEAD.unpack_from(self._memory, offset)
        kept = data[: max(MOST - size, 0)]
        at = offset + _HEAD.size + size
        self._memory[at : at + len(kept)] = kept
        _HEAD.pack_into(self._memory, offset, start, written, size + len(data), is_repeated)

    def begun(self, place: int) -> Begun:
        """Return what is noted of a connection."""
        offset = _offset(place)
        start, written, size, is_repeated = _HEAD.unpack_from(self._memory, offset)
        at = offset + _HEAD.size
        data = self._memory[at : at + min(size, MOST)]
        return Begun(written, start, size, data, bool(is_repeated))


def _offset(place: int) -> int:
    return place * (_HEAD.size + MOST)
