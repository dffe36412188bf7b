"""The server's port, held open while no server is there: requests wait, or are told to wait."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from .link import Link
from .loop import Loop, Timer
from .protocol import Kind, pack_json

PATIENCE = 8.0
"""Seconds for which requests wait for the next server; then they are told to come again."""

_READ_TIMEOUT = 5.0
_MOST_READ = 16
_MOST = 200
"""Connections that are answered at once; others wait."""

_PAGE = b"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Jupyter is not running just now</title>
<meta http-equiv="refresh" content="3">
<style>body{font:16px system-ui,sans-serif;max-width:36em;margin:15vh auto;padding:0 1em}</style>
</head><body><h1>Jupyter is not running just now</h1>
<p>Your kernels go on running, and what they print is kept for the next server. When it is there,
this page loads again by itself.</p>
<p>If nobody restarts it: start Jupyter again in the same folder. To end the kernels instead, and
free this port, run <code>jupyter sessions stop --all</code>.</p>
</body></html>
"""

_ANSWER = (
    b"HTTP/1.1 503 Service Unavailable\r\n"
    b"Content-Type: text/html; charset=utf-8\r\n"
    b"Cache-Control: no-store\r\n"
    b"Retry-After: 3\r\n"
    b"Connection: close\r\n"
    b"Content-Length: %d\r\n\r\n"
) % len(_PAGE) + _PAGE


def _turn_away(client: socket.socket) -> None:
    """Answer whatever was asked on a connection in place of a server: it can be closed then."""
    with contextlib.suppress(OSError):
        client.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            for _ in range(_MOST_READ):  # what is not read would make the end a reset
                if not client.recv(1 << 16):
                    break
        client.send(_ANSWER)
        client.shutdown(socket.SHUT_WR)


class HeldPort:
    """The port of the server that was there last: held for the next one, or given up.

    :param has_server: tells whether another server is there than the one that asks
    """

    def __init__(self, loop: Loop, has_server: Callable[[Link], bool]) -> None:
        self._loop = loop
        self._has_server = has_server
        self._port: _Port | None = None

    @property
    def address(self) -> tuple[str, int] | None:
        """Which is held, if any is."""
        return self._port.address if self._port is not None and self._port.sockets else None

    def hold(self, link: Link, answer: object, host: str, port: int, count: int) -> dict[str, Any]:
        """Hold the sockets that came with this call."""
        files = [link.take_file() for _ in range(count)]
        sockets = [socket.socket(fileno=file) for file in files if file is not None]
        self.close()
        self._port = _Port(self._loop, (host, port), sockets)
        return {}

    def take(self, link: Link, answer: object, host: str, port: int) -> dict[str, Any] | None:
        """Hand the sockets over to a server that starts; they go on being held."""
        if self._port is None or self._has_server(link):
            return {}
        if self._port.address != (host, port):
            self.close()
            return {}
        self._port.leave_to_server()
        self._port.wait()  # should it end before it holds them
        link.send_files(
            pack_json(Kind.ANSWER, 1), [listener.fileno() for listener in self._port.sockets]
        )
        return None

    def give_up(self, link: Link, answer: object, host: str, port: int) -> dict[str, Any]:
        """Leave an address to a server of another root folder, if no server uses it here."""
        if (
            self._port is not None
            and not self._has_server(link)
            and self._port.address == (host, port)
        ):
            self.close()
        return {}

    def wait(self) -> None:
        """Wait for a server."""
        if self._port is not None:
            self._port.wait()

    def leave_to_server(self) -> None:
        """Have a server accept."""
        if self._port is not None:
            self._port.leave_to_server()

    def close(self, _: object = None) -> None:
        """Hold it no more."""
        if self._port is not None:
            self._port.close()
            self._port = None


class _Port:
    """Listening sockets, of which the server has duplicates.

    :param address: what the server was configured with: a host and a port
    :param sockets: they are closed with this
    """

    def __init__(
        self, loop: Loop, address: tuple[str, int], sockets: Sequence[socket.socket]
    ) -> None:
        self.address = address
        self.sockets = sockets
        self._loop = loop
        self._timer: Timer | None = None
        self._is_answering = False
        self._is_full = False
        self._answering: dict[socket.socket, Timer] = {}

    def wait(self) -> None:
        """Wait for a server, and answer in its place when that takes long."""
        self._timer = self._loop.call_later(PATIENCE, self._answer)

    def leave_to_server(self) -> None:
        """Have a server accept again."""
        if self._timer is not None:
            self._timer.cancel()
        self._forget_listeners()

    def _forget_listeners(self) -> None:
        self._is_full = False
        if self._is_answering:
            self._is_answering = False
            for listener in self.sockets:
                self._loop.forget(listener)

    def _answer(self) -> None:
        self._is_answering, self._is_full = True, False
        for listener in self.sockets:
            listener.setblocking(False)
            self._loop.watch(listener, partial(self._accept, listener))

    def _accept(self, listener: socket.socket, _: int) -> None:
        if len(self._answering) >= _MOST:
            self._forget_listeners()
            self._is_full = True  # until one of them has its answer
            return
        with contextlib.suppress(BlockingIOError, ConnectionError):
            client, _ = listener.accept()
            client.setblocking(False)
            self._answering[client] = self._loop.call_later(
                _READ_TIMEOUT, lambda: self._hang_up(client)
            )
            self._loop.watch(client, lambda _: self._reply(client))

    def _reply(self, client: socket.socket) -> None:
        """Answer as soon as there is a request, whatever it is."""
        _turn_away(client)
        self._hang_up(client)

    def _hang_up(self, client: socket.socket) -> None:
        timer = self._answering.pop(client, None)
        if timer is not None:
            timer.cancel()
            self._loop.forget(client)
            client.close()
            if self._is_full:
                self._answer()

    def close(self) -> None:
        """Hold it no more."""
        self.leave_to_server()
        for client in [*self._answering]:
            self._hang_up(client)
        for listener in self.sockets:
            listener.close()
        self.sockets = ()
