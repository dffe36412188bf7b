"""Connections that clients had with a server when it ended: the next server goes on with them."""

from __future__ import annotations

import contextlib
import fcntl
import socket
import struct
import termios
from functools import partial
from typing import Any

from .link import Link
from .loop import Loop, Timer
from .peer import bytes_acknowledged, bytes_received, tcp_info
from .port import PATIENCE, turn_away
from .protocol import Kind, pack_json
from .requests import HEAD_END, MOST, Begun, Requests

RETENTION = 120.0
"""Seconds for which connections are held on which nothing is asked."""

_HARMLESS = (b"GET ", b"HEAD ")
"""What changes nothing."""

_LOOKS = 100


class HeldConnections:
    """Clients' connections with the server: each is the server's until that has ended."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._requests: Requests | None = None
        self._held: dict[int, socket.socket] = {}
        self._left: dict[socket.socket, Begun] = {}
        """Those for which there is no server, and what is to be asked again on each."""
        self._timers: list[Timer] = []

    def share(self, file: int) -> None:
        """Have the memory in which a server notes what it is asked; its connections follow."""
        self.forget()
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
        """Leave to the next server what this one has not answered, and what will be asked."""
        requests, held, self._held = self._requests, self._held, {}
        if requests is None:
            return
        for place, client in held.items():
            begun = _left_of(client, requests.begun(place))
            if begun is None or not _may_be_asked_again(begun):
                client.close()
            else:
                self._left[client] = begun
        self._stop_timers()
        self._timers = [
            self._loop.call_later(PATIENCE, self._answer),
            self._loop.call_later(RETENTION, self._drop_left),
        ]

    def take(self, link: Link, answer: object) -> dict[str, Any] | None:
        """Hand one of them over to a server that starts, with what it must know of it."""
        if not self._left:
            return {}
        client, begun = self._left.popitem()
        about = begun._asdict() | {"data": begun.data.decode("latin-1")}
        try:
            link.send_files(pack_json(Kind.ANSWER, 1, **about), [client.fileno()])
        finally:
            self._drop(client)
        return None

    def _answer(self) -> None:
        """Answer in place of a server that is long in coming."""
        for client, begun in [*self._left.items()]:
            if begun.size:
                self._reply(client)
            else:
                self._loop.watch(client, partial(self._reply, client))

    def _reply(self, client: socket.socket, _: object = None) -> None:
        turn_away(client)
        self._drop(client)

    def _drop(self, client: socket.socket) -> None:
        self._left.pop(client, None)
        with contextlib.suppress(KeyError, ValueError):  # it is watched only when there is time
            self._loop.forget(client)
        client.close()

    def close(self) -> None:
        """Hold nothing any more."""
        self._stop_timers()
        self._drop_left()
        self.forget()

    def _stop_timers(self) -> None:
        for timer in self._timers:
            timer.cancel()

    def _drop_left(self) -> None:
        for client in [*self._left]:
            self._drop(client)

    def forget(self) -> None:
        """Know nothing of a server's connections any more; those that it can take stay."""
        for held in self._held.values():
            held.close()
        self._held.clear()
        if self._requests is not None:
            self._requests.close()
            self._requests = None


def _may_be_asked_again(begun: Begun) -> bool:
    """Tell whether it does no harm: what has changed something is not done twice.

    It is done once, should it be what servers end of.
    """
    if not begun.size:
        return True
    is_whole = HEAD_END in begun.data
    is_known = begun.size <= MOST and not begun.is_repeated
    return is_known and (not is_whole or begun.data.startswith(_HARMLESS))


def _left_of(connection: socket.socket, begun: Begun) -> Begun | None:
    """Return what was not answered on a connection.

    :returns: size 0: there is nothing; None: it was answered in part, or is over
    """
    found = _settled(connection)
    if found is None:
        return None
    received, unread, written = found
    taken = received - unread
    # What is noted to be taken may be in the socket yet.
    size = min(begun.size, max(taken - begun.start, 0))
    if size and written > begun.written:
        return None
    return begun._replace(
        written=written, start=taken - size, size=size, data=begun.data[: min(size, MOST)]
    )


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
