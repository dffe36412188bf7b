"""Connections that clients have with the server: the keeper has them too, and what they ask."""

from __future__ import annotations

import contextlib
import os
import socket
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from tornado.httpserver import HTTPServer
from tornado.ioloop import IOLoop
from tornado.iostream import IOStream

from .keeper.requests import HEAD_END, MOST, PLACES, Begun, Requests
from .keeper.supervisor import Supervisor

_UPGRADE = b"\r\nupgrade:"
_NEW = Begun(written=0, start=0, size=0, data=b"", is_repeated=False)


def hold_connections(
    server: HTTPServer,
    keeper: Supervisor,
    left: Iterable[tuple[socket.socket, Begun]],
    is_stopping: Callable[[], bool],
) -> int | None:
    """Have the keeper hold a server's connections: what is asked on one gets its answer.

    :param left: those that the last server had
    :param is_stopping: tells whether the server closes them because it is stopped
    :returns: the descriptor of the memory for what is asked; None: it cannot be done here
    """
    if not _can_hold(server):
        return None
    requests, places = Requests.create(), deque(range(PLACES))
    handle: Any = server._handle_connection

    def go_on(connection: socket.socket, address: Any, begun: Begun) -> None:
        place = places.popleft()
        keeper.hold(place, connection)  # first of all: the server may be killed at any time
        stream = IOStream(
            connection,
            max_buffer_size=server.max_buffer_size,
            read_chunk_size=server.read_chunk_size,
        )
        _Connection(stream, place, keeper, requests, places, is_stopping, begun)
        server.handle_stream(stream, address)

    def accepted(connection: socket.socket, address: Any) -> None:
        if places:
            go_on(connection, address, _NEW)
        else:
            handle(connection, address)

    def go_on_with_all() -> None:
        for connection, begun in left:
            with contextlib.suppress(OSError):
                go_on(connection, connection.getpeername(), begun)

    server._handle_connection = accepted  # type: ignore[method-assign]
    IOLoop.current().add_callback(go_on_with_all)
    return requests.file


def _can_hold(server: HTTPServer) -> bool:
    """Tell whether the system has such memory, and tornado what is no public part of it."""
    stream = IOStream(socket.socket())
    try:
        needed = {
            os: ["memfd_create"],
            server: ["_handle_connection"],
            stream: ["_read_buffer", "_total_write_done_index"],
        }
        return all(hasattr(of, name) for of, names in needed.items() for name in names)
    finally:
        stream.close()


class _Connection:
    """One of them, as long as the server answers requests on it.

    :param place: its own in the memory
    :param places: those that are free there
    :param begun: what was on it before
    """

    def __init__(
        self,
        stream: IOStream,
        place: int,
        keeper: Supervisor,
        requests: Requests,
        places: deque[int],
        is_stopping: Callable[[], bool],
        begun: Begun,
    ) -> None:
        self._stream = stream
        self._socket: socket.socket = stream.socket
        self._keeper = keeper
        self._requests = requests
        self._places = places
        self._place = place
        self._is_stopping = is_stopping
        self._written = begun.written
        """Bytes, before this server had it."""
        self._again = begun.data
        """What the last server had taken from the socket, and not answered."""
        self._taken, self._size = begun.start, 0
        self._requests.begin(place, begun.written, begun.start, bool(begun.data))
        for name, method in self._methods.items():
            setattr(stream, name, method)

    @property
    def _methods(self) -> dict[str, Callable[..., Any]]:
        """The stream's methods that are replaced."""
        return {
            "read_from_fd": self._read,
            "set_nodelay": self._set_nodelay,
            "close_fd": self._close,
        }

    def _read(self, buffer: bytearray | memoryview) -> int | None:
        try:
            size = self._read_again(buffer) if self._again else self._receive(buffer)
            self._taken += size
            if size and self._is_others():
                self._let_go()
            return size
        except BlockingIOError:
            return None
        finally:
            del buffer

    def _read_again(self, buffer: bytearray | memoryview) -> int:
        size = min(len(self._again), len(buffer))
        buffer[:size] = self._again[:size]
        self._note(self._again[:size])
        self._again = self._again[size:]
        return size

    def _receive(self, buffer: bytearray | memoryview) -> int:
        if self._size > MOST:  # there is no more to be noted
            return self._socket.recv_into(buffer, len(buffer))
        size = self._socket.recv_into(buffer, len(buffer), socket.MSG_PEEK)
        if size:
            with memoryview(buffer) as view, view[:size] as data:
                self._note(data)
            self._socket.recv_into(buffer, size)
        return size

    def _note(self, data: bytes | memoryview) -> None:
        self._requests.add(self._place, data)
        self._size += len(data)

    def _set_nodelay(self, value: bool) -> None:
        """Note that a request is answered: tornado ends this with it, when all is written."""
        IOStream.set_nodelay(self._stream, value)
        if not value:
            ahead = bytes(self._stream._read_buffer)  # of those that follow
            written = self._written + self._stream._total_write_done_index
            self._requests.begin(self._place, written, self._taken - len(ahead))
            self._size = 0
            self._note(ahead)
            if self._is_others():
                self._let_go()

    def _is_others(self) -> bool:
        """Tell whether it is none that answers requests: it will be a websocket, or may be."""
        head, end, _ = self._requests.begun(self._place).data.partition(HEAD_END)
        return _UPGRADE in head.lower() or (not end and self._size > MOST)

    def _close(self) -> None:
        if self._is_stopping():
            self._restore()
        else:
            # The keeper has a duplicate: to close ours alone would be no end for the client.
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
            self._let_go()
        self._stream.close_fd()

    def _let_go(self) -> None:
        self._restore()
        self._keeper.let_go(self._place)
        self._places.append(self._place)

    def _restore(self) -> None:
        for name in self._methods:
            delattr(self._stream, name)
