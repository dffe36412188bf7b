"""What a client sends is noted before it is taken: a killed server takes none of it along."""

from __future__ import annotations

import fcntl
import socket
import struct
import termios

from tornado.iostream import IOStream

from ..keeper.delivery import Delivery

_RECEIVED = 128
"""Where ``struct tcp_info`` has ``tcpi_bytes_received``."""


class Incoming:
    """Notes what a connection receives, before it takes it from the socket."""

    def __init__(self, io: IOStream, delivery: Delivery) -> None:
        self._socket: socket.socket = io.socket
        self._delivery = delivery
        waiting = struct.unpack("i", fcntl.ioctl(self._socket, termios.FIONREAD, bytes(4)))[0]
        info = self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
        (received,) = struct.unpack_from("<Q", info, _RECEIVED)
        left = buffered(io)
        delivery.begin_input(received - waiting, bytes(io._read_buffer[-left:]) if left else b"")
        io.read_from_fd = self._read  # type: ignore[method-assign, assignment]

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


def buffered(io: IOStream) -> int:
    """Return how many bytes a connection has taken and not handled."""
    size: int = io._read_buffer_size
    return size
