"""Requests that a server was answering when it ended: the next server answers them."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import selectors
import socket
import struct
import termios
from collections.abc import Callable
from functools import partial

from .link import Link
from .loop import Loop
from .peer import bytes_acknowledged, bytes_received, tcp_info
from .requests import MOST, Begun, Requests

_REPEATED = (b"GET ", b"HEAD ")
"""What may be asked again: it changes nothing."""

RETENTION = 120.0
"""Seconds for which a client may ask on a connection that it has had with the last server."""

_LONGEST_HEAD = 1 << 16
_CHUNK, _MOST_WAITING = 1 << 16, 1 << 20
_LOOKS = 100

_TEXT = (
    b"The server ended while it handled this request: what was asked for may be done, or not. "
    b"See whether it is, and ask again if not.\n"
)
_UNKNOWN = (
    b"HTTP/1.1 503 Service Unavailable\r\n"
    b"Content-Type: text/plain; charset=utf-8\r\n"
    b"Cache-Control: no-store\r\n"
    b"Retry-After: 3\r\n"
    b"Connection: close\r\n"
    b"Content-Length: %d\r\n\r\n"
) % len(_TEXT) + _TEXT


class HeldConnections:
    """Clients' connections with the server: each is the server's until that has ended.

    :param next_server: returns where the next server will listen; None: there is none to come
    """

    def __init__(
        self, loop: Loop, next_server: Callable[[], tuple[int, tuple[str, int]] | None]
    ) -> None:
        self._loop = loop
        self._next_server = next_server
        self._requests: Requests | None = None
        self._held: dict[int, socket.socket] = {}
        self._relays: set[_Relay] = set()

    def share(self, file: int) -> None:
        """Have the memory in which a server notes what it is asked; its connections follow."""
        self._forget()
        self._requests = Requests(file)

    def hold(self, link: Link, place: int) -> None:
        """Hold the connection that came with this note."""
        self.let_go(link, place)
        file = link.take_file()
        if file is not None:
            self._held[place] = socket.socket(fileno=file)

    def let_go(self, link: Link, place: int) -> None:
        """Hold a connection no more, which the server has still, or has ended."""
        held = self._held.pop(place, None)
        if held is not None:
            held.close()

    def server_ended(self) -> None:
        """Have what the server has not answered answered by the next one."""
        held, self._held = self._held, {}
        for place, client in held.items():
            if self._requests is None or not self._go_on(client, self._requests.begun(place)):
                client.close()

    def _go_on(self, client: socket.socket, begun: Begun) -> bool:
        """Go on with a connection; tell whether there is something to go on with."""
        info = _settled(client)
        if info is None:
            return False
        received, unread, written = info
        # What is noted to be taken may be in the socket yet.
        size = min(begun.size, max(received - unread - begun.start, 0))
        if size and written > begun.written:
            return False  # it was answered, be it in part
        client.setblocking(False)
        data = begun.data[:size]
        if size and (size > MOST or not data.startswith(_REPEATED)):
            with contextlib.suppress(OSError):
                client.send(_UNKNOWN)
                client.shutdown(socket.SHUT_WR)
                while client.recv(_CHUNK):  # else the client might not get it
                    pass
            return False
        where = self._next_server()
        if where is None:
            return False
        self._relays.add(_Relay(self._loop, client, data, where, self._relays.discard))
        return True

    def close(self) -> None:
        """Hold nothing any more."""
        self._forget()
        for relay in [*self._relays]:
            relay.close()

    def _forget(self) -> None:
        for held in self._held.values():
            held.close()
        self._held.clear()
        if self._requests is not None:
            self._requests.close()
            self._requests = None


def _settled(connection: socket.socket) -> tuple[int, int, int] | None:
    """Return how many bytes a connection has received, has unread, and was written.

    They are not told at once: it is asked until nothing has changed in between.
    """
    last = None
    for _ in range(_LOOKS):
        info = tcp_info(connection)
        if info is None:
            return None
        try:
            unread, unsent = (
                int(struct.unpack("i", fcntl.ioctl(connection, what, bytes(4)))[0])
                for what in (termios.FIONREAD, termios.TIOCOUTQ)
            )
        except OSError:
            return None
        found = bytes_received(info), unread, bytes_acknowledged(info) + unsent
        if found == last:
            break
        last = found
    return last


class _Relay:
    """Asks the next server what the last one was asked, and passes on what it answers.

    The connection ends with that answer: the client goes on with one of its own.

    :param data: what the last server has taken of the request
    :param where: family and address of the next server
    :param ended: is told of its end
    """

    def __init__(
        self,
        loop: Loop,
        client: socket.socket,
        data: bytes,
        where: tuple[int, tuple[str, int]],
        ended: Callable[[_Relay], object],
    ) -> None:
        self._loop = loop
        self._client = client
        self._head = bytearray(data)
        self._where = where
        self._ended = ended
        self._server: socket.socket | None = None
        self._unsent: dict[socket.socket, bytearray] = {}
        self._held_up: socket.socket | None = None
        """Of which nothing is received until the other has taken what there is."""
        self._is_last = False
        self._timer = loop.call_later(RETENTION, self.close)
        loop.watch(client, lambda _: self._receive_head())
        self._ask()

    def _receive_head(self) -> None:
        data = _receive(self._client)
        if data is None:
            return
        self._head += data
        if not data or len(self._head) > _LONGEST_HEAD:
            self.close()
        else:
            self._ask()

    def _ask(self) -> None:
        """Ask as soon as the request's head is whole."""
        head, end, rest = self._head.partition(b"\r\n\r\n")
        if not end:
            return
        family, address = self._where
        server = self._server = socket.socket(family)
        server.setblocking(False)
        if server.connect_ex(address) not in (0, errno.EINPROGRESS):
            self.close()
            return
        self._unsent = {self._client: bytearray(), server: bytearray(_closing(bytes(head)) + rest)}
        self._timer.cancel()
        self._loop.forget(self._client)
        for one in (self._client, server):
            self._loop.watch(one, partial(self._ready, one))
        self._loop.watch_writing(server, also=True)

    def _ready(self, one: socket.socket, events: int) -> None:
        try:
            if events & selectors.EVENT_WRITE:
                self._send(one)
            if events & selectors.EVENT_READ and self._unsent:
                self._pass_on(one)
        except OSError:
            self.close()

    def _pass_on(self, one: socket.socket) -> None:
        other = next(other for other in self._unsent if other is not one)
        data = _receive(one)
        if data is None:
            return
        if data:
            self._unsent[other] += data
            self._send(other)
            if len(self._unsent.get(other, b"")) > _MOST_WAITING:
                self._held_up = one
                self._loop.forget(one)
        elif one is self._client:
            self.close()
        else:
            self._is_last = True
            self._loop.forget(one)
            self._send(other)

    def _send(self, one: socket.socket) -> None:
        unsent = self._unsent[one]
        with contextlib.suppress(BlockingIOError):
            while unsent:
                del unsent[: one.send(unsent[:_CHUNK])]
        if self._is_last and not unsent:
            self.close()
            return
        if self._held_up is not one:
            self._loop.watch_writing(one, also=bool(unsent))
        if self._held_up not in (None, one) and not unsent:
            again, self._held_up = self._held_up, None
            self._loop.watch(again, partial(self._ready, again))

    def close(self) -> None:
        """End it."""
        self._timer.cancel()
        for one in (self._client, self._server):
            if one is not None:
                with contextlib.suppress(KeyError, ValueError):
                    self._loop.forget(one)
                one.close()
        self._unsent = {}
        self._ended(self)


def _receive(connection: socket.socket) -> bytes | None:
    """Return what has come; None: nothing has; empty: that was all."""
    try:
        return connection.recv(_CHUNK)
    except BlockingIOError:
        return None
    except OSError:
        return b""


def _closing(head: bytes) -> bytes:
    """Return the head of a request such that its connection ends with the answer."""
    lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"connection:")]
    return b"\r\n".join([*lines, b"Connection: close", b"", b""])
