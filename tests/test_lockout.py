"""A client that a server had let in does nothing after that server's end: its code is not run."""

from __future__ import annotations

import json
import socket
from contextlib import closing, suppress
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psutil
import pytest
import websocket
from clients import new_session
from drills import FULL, drill_count
from jupyter_server.auth.security import passwd
from kept import suspended
from messages import execute_request
from servers import Home, Server, keepers, wait_until

if TYPE_CHECKING:
    from pathlib import Path

FLOOD = "import sys; sys.stdout.write('x' * {size}); sys.stdout.flush(); open({sign!r}, 'x')"
NEXT: dict[str, dict[str, Any]] = {
    "another token": {"token": "another"},
    "a password": {
        "token": "another",
        "args": [f"--PasswordIdentityProvider.hashed_password={passwd('secret', 'sha1')}"],
    },
    "the same token": {},
}
"""What the next server asks for."""

UNLIMITED = ["--ZMQChannelsWebsocketConnection.iopub_data_rate_limit=0"]


class Reluctant:
    """A client that reads nothing until it is told to: something is always on its way to it."""

    def __init__(self, server: Server, kernel_id: str, signs: Path) -> None:
        self._signs = signs
        self.session = uuid4().hex
        self._channels = server.connect(
            kernel_id, self.session, sockopt=[(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)]
        )
        assert self._channels.sock is not None
        self.port = self._channels.sock.getsockname()[1]
        flooded = signs / f"flooded {self.session}"
        self._execute(FLOOD.format(size=8 << 20, sign=str(flooded)))
        wait_until(flooded.exists, 20, "the cell had printed")
        wait_until(self._is_full, 20, "more was sent than the client takes")

    def _is_full(self) -> bool:
        """Tell whether the system has more to send to it than it takes."""
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            _, _, remote, _, queues, *_ = line.split()
            if int(remote.partition(":")[2], 16) == self.port:
                return int(queues.partition(":")[0], 16) > 0
        return False

    def _execute(self, code: str) -> None:
        self._channels.send(json.dumps(execute_request(code, self.session)))

    def sign(self, name: str) -> None:
        """Send code that leaves a sign each time that it is run."""
        sign = str(self._signs / f"{name} {self.session}")
        with suppress(OSError, websocket.WebSocketException):
            self._execute(f"with open({sign!r}, 'a') as file: file.write('x')")

    def count(self, name: str) -> int:
        sign = self._signs / f"{name} {self.session}"
        return len(sign.read_text()) if sign.exists() else 0

    def read(self) -> None:
        """Read all that was sent."""
        self._channels.settimeout(20)
        with suppress(OSError, websocket.WebSocketException):
            while self._channels.recv():
                pass

    def close(self) -> None:
        self._channels.close(timeout=0)


CASES = [*product(NEXT, ["kill", "terminate"])]
"""The next server, and how the one before ends; in short each next one after a kill, and one more.
"""


@pytest.mark.drill
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("asks", "how"), CASES if FULL else CASES[::2] + CASES[3:4])
def test_what_is_sent_after_a_servers_end_is_not_run_and_what_it_had_is_run_once(
    home: Home, asks: str, how: str, tmp_path: Path
) -> None:
    before = Server(home, args=UNLIMITED).start()
    options = {**NEXT[asks], "args": [*UNLIMITED, *NEXT[asks].get("args", [])]}
    after = Server(home, port=before.port, **options)
    kernel_id = new_session(before)["kernel"]["id"]
    before.execute(kernel_id, "pass")
    turns = drill_count(1, 5)
    for turn in range(turns):
        with closing(Reluctant(before, kernel_id, tmp_path)) as client:
            if how == "kill":
                with suspended(psutil.Process(before.pid)):
                    client.sign("received")
                    before.kill()
            else:
                client.sign("received")
                before.terminate()
            after.start()
            client.sign("late")
            if turn % 2 == 0:  # else the keeper waits for it, for 30 seconds
                client.read()
            wait_until(lambda: not connections(home, client.port), 45, "the keeper let go of it")
            client.sign("too late")
            # On the same connection of the keeper's with the kernel: after all that went before.
            after.execute(kernel_id, "pass", session_id=client.session)
            assert client.count("received") == 1
            assert client.count("late") == client.count("too late") == 0
        before, after = after, before


def connections(home: Home, port: int) -> list[object]:
    """Return the connections that a home's keepers have with a client's port."""
    return [
        connection
        for keeper in keepers(home)
        for connection in keeper.net_connections("tcp")
        if getattr(connection.raddr, "port", None) == port
    ]
