"""A client that costs next to nothing: requests made beforehand, on sockets that are kept.

It decodes nothing while the time runs, and no event loop of its own stands between it and the
server.
"""

from __future__ import annotations

import json
import re
import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from servers import Server

TIMEOUT: Final = 60.0
END_OF_HEAD: Final = b"\r\n\r\n"
SUCCESS: Final = b"HTTP/1.1 2"
LENGTH: Final = re.compile(rb"\r\ncontent-length: (\d+)\r\n", re.IGNORECASE)
COOKIE: Final = re.compile(rb"\r\nset-cookie: (username-[^;]+);", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What the server answered.

    :param seconds: from the first byte sent until the last one received; of several that were sent
        together, until the last of them was
    """

    seconds: float
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Wire:
    """Connections to one server.

    :param count: how many there are; a single request takes the first
    """

    def __init__(self, server: Server, count: int = 1) -> None:
        self._login = f"Host: 127.0.0.1:{server.port}\r\nAuthorization: token {server.token}\r\n"
        self._connections = [_Connection(server.port) for _ in range(count)]
        # With the token alone the server would make up a user, and a cookie, for each request.
        first = self._connections[0]
        first.send(self.request("GET", "/api/status"))
        first.receive()
        cookie = COOKIE.search(first.head)
        assert cookie is not None, f"no login cookie came: {first.head!r}"
        self._login += f"Cookie: {cookie[1].decode()}\r\n"

    def close(self) -> None:
        """Close all connections."""
        for connection in self._connections:
            connection.close()

    def request(self, method: str, path: str, body: Any = None) -> bytes:
        """Return the bytes of a request; a body that is no bytes is encoded as JSON."""
        if body is None:
            return f"{method} {path} HTTP/1.1\r\n{self._login}\r\n".encode()
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        kind = f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n"
        return f"{method} {path} HTTP/1.1\r\n{self._login}{kind}\r\n".encode() + content

    def exchange(self, request: bytes) -> Reply:
        """Send one request, and wait for its answer."""
        return self.exchange_all([request])[0]

    def exchange_all(self, requests: Sequence[bytes]) -> list[Reply]:
        """Send requests at once, each on a connection of its own, and wait for all the answers."""
        connections = self._connections[: len(requests)]
        began = time.perf_counter()
        for connection, request in zip(connections, requests, strict=True):
            connection.send(request)
        for connection in connections:
            connection.receive()
        seconds = time.perf_counter() - began
        for connection in connections:
            failure = f"the server answered {connection.head!r} {connection.body!r}"
            assert connection.head.startswith(SUCCESS), failure
        return [Reply(seconds=seconds, body=connection.body) for connection in connections]


class _Connection:
    """One kept connection, and the last answer that came on it."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), TIMEOUT)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = bytearray(1 << 16)
        self._start = self._end = 0

    @property
    def head(self) -> bytes:
        return bytes(self._buffer[: self._start])

    @property
    def body(self) -> bytes:
        return bytes(self._buffer[self._start : self._end])

    def close(self) -> None:
        self._socket.close()

    def send(self, request: bytes) -> None:
        self._socket.sendall(request)

    def receive(self) -> None:
        """Wait for the whole of an answer."""
        received = self._receive(0)
        while (start := self._buffer.find(END_OF_HEAD, 0, received) + len(END_OF_HEAD)) < 4:
            received += self._receive(received)
        self._start = self._end = start
        length = LENGTH.search(self.head)
        self._end += int(length[1]) if length else 0
        self._buffer.extend(bytes(max(self._end - len(self._buffer), 0)))
        while received < self._end:
            received += self._receive(received)

    def _receive(self, start: int) -> int:
        with memoryview(self._buffer) as view:
            count = self._socket.recv_into(view[start:])
        if not count:
            message = "the server closed the connection"
            raise ConnectionError(message)
        return count
