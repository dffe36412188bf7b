"""What the way over the keeper costs: a cell's round trip, and a kernel that prints in a flood."""

from __future__ import annotations

import json
import socket
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Final
from uuid import uuid4

import websocket
from messages import execute_request
from servers import Home, Server

from .figure import Figure, note

STOCK: Final = "--ServerApp.jpserver_extensions={'jupyter_sessions_ext': False}"
UNLIMITED: Final = "--ZMQChannelsWebsocketConnection.limit_rate=False"
LINES: Final = 20_000
CELLS: Final = 20
"""Round trips that are timed in one turn."""
SILENCE: Final = 10.0
"""Seconds after which nothing more comes."""


class Client:
    """A client of a kernel that acknowledges at once what it receives.

    Else what is measured is mostly how long its system waits until it acknowledges.
    """

    def __init__(self, server: Server) -> None:
        kernel = {"path": "a.ipynb", "type": "notebook", "kernel": {"name": "python3"}}
        session = server.post("/api/sessions", kernel).raise_for_status().json()
        self._session_id = uuid4().hex
        self._channels = server.connect(session["kernel"]["id"], self._session_id, SILENCE)
        self.run("import sys")

    def run(self, code: str) -> tuple[float, str]:
        """Run a cell; return the seconds until its end is known, and what it printed."""
        request = execute_request(code, self._session_id)
        printed = []
        missing = {"reply", "idle"}
        began = ended = time.perf_counter()
        self._channels.send(json.dumps(request))
        while missing:
            try:
                message = json.loads(self._receive())
            except websocket.WebSocketTimeoutException:
                if "reply" not in missing:
                    break  # in a flood stock may lose the very end
                raise
            if message["parent_header"].get("msg_id") != request["header"]["msg_id"]:
                continue
            ended = time.perf_counter()
            content = message["content"]
            if message["msg_type"] == "stream":
                printed.append(content["text"])
            elif message["msg_type"] == "execute_reply":
                missing.discard("reply")
            elif content.get("execution_state") == "idle":
                missing.discard("idle")
        return ended - began, "".join(printed)

    def _receive(self) -> str | bytes:
        connection = self._channels.sock
        assert connection is not None
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        return self._channels.recv()


def measure(folder: Path, short: bool) -> list[Figure]:
    """Run cells on a server of ours and on one of stock, in turn."""
    turns, floods = (10, 2) if short else (40, 6)
    trips: dict[str, list[float]] = {"ours": [], "stock": []}
    rates: dict[str, list[float]] = {"ours": [], "stock": []}
    expected = "".join(f"{number}\n" for number in range(LINES))
    with ExitStack() as running:
        clients = {}
        for name, args in (("ours", []), ("stock", [STOCK])):
            server = Server(Home(folder / name), args=[UNLIMITED, *args])
            running.callback(server.close)
            clients[name] = Client(server.start())
        for _ in range(turns):
            for name, client in clients.items():
                trips[name] += [client.run("1")[0] for _ in range(CELLS)]
        for _ in range(floods):
            for name, client in clients.items():
                seconds, printed = client.run(f"for i in range({LINES}): print(i, flush=True)")
                lines = printed.count("\n")
                rates[name].append(lines / seconds)
                if name == "ours":
                    assert printed == expected, "it is not complete"
                note(f"relay: {name} {lines / seconds:.0f} lines per second, {lines} in all")
    trip = {name: median(times) for name, times in trips.items()}
    rate = {name: median(found) for name, found in rates.items()}
    return [
        Figure(
            name="round trip of a cell, ours / stock",
            measured=trip["ours"] / trip["stock"],
            target=1.1,
            detail=f"medians {trip['ours'] * 1000:.2f} ms / {trip['stock'] * 1000:.2f} ms of "
            f"{turns * CELLS}",
        ),
        Figure(
            name=f"{LINES} lines as fast as can be, ours / stock",
            measured=rate["ours"] / rate["stock"],
            target=0.9,
            at_least=True,
            detail=f"medians {rate['ours']:.0f} / {rate['stock']:.0f} lines per second of {floods}",
        ),
    ]
