"""Connections that clients have with the server: the keeper has them too, and what they ask."""

from __future__ import annotations

import contextlib
import os
import socket
from collections import deque
from collections.abc import Callable
from typing import Any

from tornado.httpserver import HTTPServer
from tornado.iostream import IOStream

from .keeper.requests import MOST, PLACES, Requests
from .keeper.supervisor import Supervisor

_UPGRADE = b"\r\nupgrade:"


def hold_connections(
    server: HTTPServer, keeper: Supervisor, is_stopping: Callable[[], bool]
) -> int | None:
    """Have the keeper hold a server's connections: what is asked on one gets its answer.

    :param is_stopping: tells whether the server closes them because it is stopped
    :returns: the descriptor of the memory for what is asked; None: this system has no such memory
    """
    if not hasattr(os, "memfd_create"):
        return None
    requests, places = Requests.create(), deque(range(PLACES))
    handle: Any = server.handle_stream

    def handle_stream(stream: IOStream, address: Any) -> Any:
        if type(stream) is IOStream and places:
            _Connection(stream, keeper, requests, places, is_stopping)
        return handle(stream, address)

    server.handle_stream = handle_stream  # type: ignore[method-assign]
    return requests.file


class _Connection:
    """One of them, as long as the server answers requests on it.

    :param places: those that are free in the memory
    """

    def __init__(
        self,
        stream: IOStream,
        keeper: Supervisor,
        requests: Requests,
        places: deque[int],
        is_stopping: Callable[[], bool],
    ) -> None:
        self._stream = stream
        self._socket: socket.socket = stream.socket
        self._keeper = keeper
        self._requests = requests
        self._places = places
        self._place = places.popleft()
        self._is_stopping = is_stopping
        self._taken = self._size = self._written = 0
        self._requests.begin(self._place, 0, 0)
        stream.read_from_fd = self._read  # type: ignore[method-assign, assignment]
        stream.close_fd = self._close  # type: ignore[method-assign]
        self._keeper.hold(self._place, self._socket)

    def _read(self, buffer: bytearray | memoryview) -> int | None:
        self._begin_another()
        try:
            if self._size > MOST:  # there is no more to be noted
                size = self._socket.recv_into(buffer, len(buffer))
            else:
                size = self._socket.recv_into(buffer, len(buffer), socket.MSG_PEEK)
                if size:
                    self._requests.add(self._place, memoryview(buffer)[:size])
                    self._socket.recv_into(buffer, size)
            self._taken += size
            self._size += size
            if size and self._is_upgrade():
                self._let_go()
            return size
        except BlockingIOError:
            return None
        finally:
            del buffer

    def _begin_another(self) -> None:
        """Note that the last request is answered, when its answer is written."""
        written = self._stream._total_write_done_index
        is_written = self._stream._total_write_index == written
        if self._size and is_written and written > self._written:
            self._size, self._written = 0, written
            self._requests.begin(self._place, written, self._taken)

    def _is_upgrade(self) -> bool:
        """Tell whether it will be a websocket: others look after those."""
        return _UPGRADE in self._requests.begun(self._place).data.lower()

    def _close(self) -> None:
        if self._is_stopping():
            del self._stream.read_from_fd, self._stream.close_fd
        else:
            # The keeper has a duplicate: to close ours alone would be no end for the client.
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
            self._let_go()
        self._stream.close_fd()

    def _let_go(self) -> None:
        del self._stream.read_from_fd, self._stream.close_fd
        self._keeper.let_go(self._place)
        self._places.append(self._place)
