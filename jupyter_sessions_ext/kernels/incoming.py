"""What a client sends is noted before it is taken, and kept until the kernel has it.

So a killed server takes none of it along, and neither does a killed keeper.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from tornado.iostream import IOStream

from ..keeper.delivery import Delivery
from ..keeper.peer import bytes_taken, tcp_info


class Incoming:
    """Notes what a connection receives, before it takes it from the socket."""

    def __init__(self, io: IOStream, delivery: Delivery) -> None:
        self._io = io
        self._socket: socket.socket = io.socket
        self._delivery = delivery
        left = buffered(io)
        unhandled = bytes(io._read_buffer[-left:]) if left else b""
        taken, _ = bytes_taken(io.socket) or (0, 0)
        delivery.begin_input(taken, unhandled)
        io.read_from_fd = self._read  # type: ignore[method-assign, assignment]

    def stop(self) -> None:
        """Note no more."""
        del self._io.read_from_fd

    def _read(self, buffer: bytearray | memoryview) -> int | None:
        try:
            size = self._socket.recv_into(buffer, len(buffer), socket.MSG_PEEK)
            if size:
                self._delivery.take(memoryview(buffer)[:size])
                self._socket.recv_into(buffer, size)
            return size
        except BlockingIOError:
            return None
        finally:
            del buffer


@dataclass(slots=True)
class _Message:
    channel: str
    frames: list[bytes]
    end: int | None = None
    """Where it ends in the bytes that the client has sent."""


class Unconfirmed:
    """A client's messages of which it is not known that the kernel has them, in their order."""

    def __init__(self) -> None:
        self._messages: deque[_Message] = deque()

    def __iter__(self) -> Iterator[tuple[str, list[bytes]]]:
        return iter([(message.channel, message.frames) for message in self._messages])

    def add(self, channel: str, frames: list[bytes]) -> None:
        """Add a message that is being sent."""
        self._messages.append(_Message(channel, frames))

    def end_last(self, end: int) -> bool:
        """Note where the last one ends in the bytes that came; tell whether there is one."""
        if self._messages:
            self._messages[-1].end = end
        return bool(self._messages)

    def confirm(self, count: int) -> int | None:
        """Forget the first ones; return where they end, as far as it was noted."""
        end = None
        for _ in range(min(count, len(self._messages))):
            end = self._messages.popleft().end or end
        return end

    def clear(self) -> None:
        """Forget all."""
        self._messages.clear()


def can_note(io: IOStream) -> bool:
    """Tell whether it can be known of a connection what came, and what arrived.

    It cannot of one that is encrypted, of a unix socket, and on other systems than Linux.
    """
    return type(io) is IOStream and tcp_info(io.socket) is not None


def buffered(io: IOStream) -> int:
    """Return how many bytes a connection has taken and not handled."""
    size: int = io._read_buffer_size
    return size


def refuse_endless(message: bytes, *, is_v1: bool) -> None:
    """Refuse a message that tells of more parts than it has bytes.

    jupyter_server would count them, up to 2**64, and be there for nobody meanwhile.

    :raises ValueError: it is such a one
    """
    count = int.from_bytes(message[:8], "little") if is_v1 else int.from_bytes(message[:4], "big")
    if count > len(message):
        raise ValueError(f"{count} parts in {len(message)} bytes")
