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
"""Bytes that are read at once of what a client has sent: it may go on sending."""

_CHUNK = 1 << 16
_LOOKS = 1000

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


def bytes_taken(connection: socket.socket) -> tuple[int, int] | None:
    """Return how many bytes were taken from a connection, and how many wait in its socket.

    The system does not tell what came and what waits at once: it is asked until nothing has come
    in between.

    :returns: ``None`` where that cannot be told
    """
    came, waiting = -1, 0
    for _ in range(_LOOKS):
        info = tcp_info(connection)
        if info is None:
            return None
        if bytes_received(info) == came:
            break
        came = bytes_received(info)
        try:
            (waiting,) = struct.unpack("i", fcntl.ioctl(connection, termios.FIONREAD, bytes(4)))
        except OSError:
            return None
    return came - waiting, waiting


class Peer:
    """A duplicate of a connection's socket.

    :param file: its descriptor, which is closed with this
    """

    def __init__(self, file: int) -> None:
        self._socket = socket.socket(fileno=file)
        self._size: int | None = None

    def take_unread(self) -> tuple[int, bytes] | None:
        """Return how many bytes the server took from the socket, and what has come since.

        What comes later is not returned: nobody who is responsible for it has received it.

        :returns: ``None`` where it cannot be told
        """
        found = bytes_taken(self._socket)
        if found is None:
            return None
        taken, waiting = found
        unread = bytearray()
        with contextlib.suppress(OSError):
            while len(unread) < min(waiting, _MOST_UNREAD):
                data = self._socket.recv(waiting - len(unread), socket.MSG_DONTWAIT)
                if not data:
                    break
                unread += data
        return taken, bytes(unread)

    def hang_up(self) -> None:
        """Let the client know that nothing more comes: after what was written."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def look(self) -> bool:
        """Drop what has come, and tell whether what was written may still get there."""
        # In this order: the two are not read at once, and must not seem to be less than they are.
        waiting = self._waiting()
        info = self.ask()
        if info is None:
            return False
        with contextlib.suppress(OSError):
            for _ in range(0, _MOST_UNREAD, _CHUNK):
                # What is never taken would reset the connection at its end, and what was written
                # and is not there yet would be lost.
                if not self._socket.recv(_CHUNK, socket.MSG_DONTWAIT):
                    break
        return bool(waiting) and info[0] in _SENDING

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
