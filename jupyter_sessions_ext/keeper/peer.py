"""The other end of a client's connection, when the server that had it is gone."""

from __future__ import annotations

import contextlib
import fcntl
import socket
import struct
import sys
import termios

_ACKED, _RECEIVED = 120, 128
"""Where ``struct tcp_info`` has ``tcpi_bytes_acked`` and ``tcpi_bytes_received``."""

_MOST_UNREAD = 1 << 23
"""Bytes of what a client has sent that are kept, and are taken at once: it may go on sending."""

_CHUNK = 1 << 16

_SENDING = {1, 4, 5, 8, 9, 11}
"""States in which what was written may still get there: all but those of a closed connection."""


def tcp_info(connection: socket.socket) -> bytes | None:
    """Return what the system tells of a connection; None: not what is needed here."""
    if sys.platform == "linux" and connection.family in (socket.AF_INET, socket.AF_INET6):
        with contextlib.suppress(OSError):
            info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
            if len(info) >= _RECEIVED + 8:
                return info
    return None


def bytes_acknowledged(info: bytes) -> int:
    """Return how many bytes of what a connection was written have arrived."""
    acknowledged: int = struct.unpack_from("<Q", info, _ACKED)[0]
    return acknowledged


def bytes_received(info: bytes) -> int:
    """Return how many bytes came on a connection, of which :func:`tcp_info` told."""
    received: int = struct.unpack_from("<Q", info, _RECEIVED)[0]
    return received


class Peer:
    """A duplicate of a connection's socket.

    :param file: its descriptor, which is closed with this
    """

    def __init__(self, file: int) -> None:
        self._socket = socket.socket(fileno=file)
        self.unread = bytearray()
        """What has come and no server has taken."""
        self.dropped = 0
        """Bytes that came after that."""
        self._size: int | None = None

    def hang_up(self) -> None:
        """Let the client know that nothing more comes: after what was written."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def look(self) -> bool:
        """Take what has come, and tell whether what was written may still get there."""
        # In this order: the two are not read at once, and must not seem to be less than they are.
        waiting = self._waiting()
        info = self.ask()
        if info is None:
            return False
        with contextlib.suppress(OSError):
            for _ in range(0, _MOST_UNREAD, _CHUNK):
                # What is never taken would reset the connection at its end, and what was written
                # and is not there yet would be lost.
                data = self._socket.recv(_CHUNK, socket.MSG_DONTWAIT)
                if not data:
                    break
                self._keep(data)
        return bool(waiting) and info[0] in _SENDING

    def _keep(self, data: bytes) -> None:
        room = _MOST_UNREAD - len(self.unread)
        self.unread += data[:room]
        self.dropped += len(data[room:])

    def ask(self) -> bytes | None:
        """Ask the system about the connection; see :func:`tcp_info`."""
        info = tcp_info(self._socket)
        if info is not None:
            self._size = bytes_acknowledged(info)
        return info

    @property
    def acknowledged(self) -> int | None:
        """Bytes that the client's system has, as was seen last; None: that cannot be told."""
        return self._size

    @property
    def received(self) -> int | None:
        """Bytes that came from the client; None: that cannot be told."""
        info = tcp_info(self._socket)
        return None if info is None else bytes_received(info)

    def _waiting(self) -> int:
        with contextlib.suppress(OSError):
            answer = fcntl.ioctl(self._socket, termios.TIOCOUTQ, bytes(4))
            return int(struct.unpack("i", answer)[0])
        return 0

    def close(self) -> None:
        """End the connection, which no server has any more."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self.release()

    def release(self) -> None:
        """Let go of the connection, which the server still has."""
        self._socket.close()
