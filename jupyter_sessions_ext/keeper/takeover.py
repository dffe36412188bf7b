"""The port that a keeper holds is taken over, before a server's loop runs."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from .protocol import SOCKET, Kind, ProtocolError, Unpacker, pack_json

_TIMEOUT = 2.0
_MOST_SOCKETS = 16


def connect(folder: Path, timeout: float) -> socket.socket:
    """Return a connection with the keeper of a folder.

    :raises OSError: there is none
    """
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(timeout)
    try:
        # Below /proc the folder's path is short; a socket's must be.
        directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            connection.connect(f"/proc/self/fd/{directory}/{SOCKET}")
        finally:
            os.close(directory)
    except BaseException:
        connection.close()
        raise
    return connection


def take_port(folder: Path, address: tuple[str, int]) -> list[socket.socket]:
    """Return the listening sockets of an address; none, if no keeper holds them.

    A keeper that holds another address gives it up: this server is where it was told to be.
    """
    try:
        with connect(folder, _TIMEOUT) as connection:
            host, port = address
            connection.sendall(pack_json(Kind.CALL, 1, op="take_port", host=host, port=port))
            unpacker, files = Unpacker(), list[int]()
            while True:
                data, more, _, _ = socket.recv_fds(connection, 1 << 16, _MOST_SOCKETS)
                files += more
                if not data or any(unpacker.feed(data)):
                    return [socket.socket(fileno=file) for file in files]
    except (OSError, ProtocolError):
        return []
