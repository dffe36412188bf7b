"""The requests in flight of a server: one that stops lets them end first."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable
from typing import Any

from jupyter_server.serverapp import ServerApp
from tornado.http1connection import HTTP1ServerConnection
from tornado.httpserver import HTTPServer
from tornado.httputil import (
    HTTPConnection,
    HTTPHeaders,
    HTTPMessageDelegate,
    HTTPServerConnectionDelegate,
    RequestStartLine,
    ResponseStartLine,
)

TIMEOUT = 4.0
"""Seconds that requests have to end. ``jupyter server stop`` sends SIGTERM after five."""

_INTERVAL = 0.01


class RequestDrain(HTTPServerConnectionDelegate):
    """Stands between an HTTP server and its application, and knows which requests run.

    :raises TypeError: the server has something else than a tornado application
    """

    def __init__(self, server: HTTPServer) -> None:
        application = server.request_callback
        if not isinstance(application, HTTPServerConnectionDelegate):
            raise TypeError(f"{application!r} is no tornado application")
        self._server = server
        self._application = application
        self._runs: dict[object, bool] = {}
        """Open connections, each with whether it has a request; websockets are none."""
        self._is_draining = False
        self._on_close = server.on_close
        server.request_callback = self
        server.on_close = self.on_close  # type: ignore[method-assign]

    def start_request(
        self, server_conn: object, request_conn: HTTPConnection
    ) -> HTTPMessageDelegate:
        """Begin to wait for a request; the one before it on the connection has its answer."""
        self._runs[server_conn] = False
        behind = self._application.start_request(server_conn, request_conn)
        return _Request(behind, self, server_conn)

    def begin(self, server_conn: object) -> None:
        """Note that a connection has a request."""
        self._runs[server_conn] = True

    def on_close(self, server_conn: Any) -> None:
        """Note that a connection has ended, or has become a websocket."""
        self._runs.pop(server_conn, None)
        self._on_close(server_conn)

    async def drain(self, *, but: int = 0) -> None:
        """Wait until all requests have their answers, then close the idle connections.

        Requests that come meanwhile on open connections are answered, too, each as the last one
        of its connection. It takes :data:`TIMEOUT` at most; a second call does not wait.

        :param but: requests that are not waited for, as the one that stops the server
        """
        if self._is_draining:
            return
        self._is_draining = True
        self._server.conn_params.no_keep_alive = True
        deadline = time.monotonic() + TIMEOUT
        await asyncio.sleep(_INTERVAL)  # what has come already begins
        while sum(self._runs.values()) > but and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(_INTERVAL)
        for connection, runs in [*self._runs.items()]:
            if not runs and isinstance(connection, HTTP1ServerConnection):
                await connection.close()


class _Request(HTTPMessageDelegate):
    def __init__(
        self, behind: HTTPMessageDelegate, drain: RequestDrain, server_conn: object
    ) -> None:
        self._behind = behind
        self._drain = drain
        self._server_conn = server_conn

    def headers_received(
        self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders
    ) -> Awaitable[None] | None:
        self._drain.begin(self._server_conn)
        return self._behind.headers_received(start_line, headers)

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        return self._behind.data_received(chunk)

    def finish(self) -> None:
        self._behind.finish()

    def on_connection_close(self) -> None:
        self._behind.on_connection_close()


def stop_on_interrupt(server: ServerApp) -> None:
    """Have SIGINT stop a server without a terminal as SIGTERM does: requests end first.

    With a terminal jupyter_server has a handler of its own, which asks.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, lambda *_: server.stop(from_signal=True))
