"""A server with as many sessions as wanted, and what can be asked of it."""

from __future__ import annotations

import json
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from messages import execute_request, run_cell
from servers import Home, Server

from . import constant
from .figure import note
from .wire import Reply, Wire

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import websocket

ROOT: Final = Path(__file__).parents[1]
SESSIONS: Final = "/api/sessions"
IMPORT: Final = "/sessions/api/v1/import"
METRICS: Final = "/metrics"
OURS: Final = {constant.__name__: True}
STOCK: Final = {**OURS, "jupyter_sessions_ext": False}
AT_ONCE: Final = 16
"""Connections, and so the requests that can be made at the same time."""
STARTS: Final = 4
"""Kernels that are started at the same time."""
CELL_TIMEOUT: Final = 60.0


@dataclass(frozen=True, slots=True)
class Renaming:
    """Sessions that were renamed at once, to paths that no session had."""

    paths: list[str]
    seconds: float


class Subject:
    """A server that keeps its sessions on disk.

    :param is_stock: it runs without the extension
    """

    def __init__(self, folder: Path, kernels: int, *, is_stock: bool = False) -> None:
        home = Home(folder)
        args = [f"--ServerApp.jpserver_extensions={OURS}"]
        if is_stock:
            database = home.data_dir / "sessions.sqlite"
            args = [
                f"--ServerApp.jpserver_extensions={STOCK}",
                f"--SessionManager.database_filepath={database}",
            ]
        self.server = Server(home, args=args, env={"PYTHONPATH": str(ROOT)})
        self.name = folder.name
        self.sessions: list[str] = []
        self._paths = count()
        self._turns = count()
        self._channels: list[websocket.WebSocket] = []
        try:
            self.server.start()
            is_ours = "jupyter_sessions_ext | extension was successfully loaded" in self.server.log
            assert is_ours is not is_stock, f"{self.name} is the wrong server"
            self._wire = Wire(self.server, AT_ONCE)
            note(f"requests: {self.name} starts {kernels} kernels")
            with ThreadPoolExecutor(STARTS) as pool:
                self.kernels = list(pool.map(self._start_kernel, range(kernels)))
        except BaseException:
            self.server.close()
            raise

    def close(self) -> None:
        """End the server and its kernels."""
        self.disconnect()
        self._wire.close()
        self.server.close()

    # ------------------------------------------------------------------ what it holds

    def fill(self, number: int) -> None:
        """Add sessions, which share the kernels, until there are so many."""
        while len(self.sessions) < number:
            wanted = min(AT_ONCE, number - len(self.sessions))
            replies = self._wire.exchange_all([self._creation() for _ in range(wanted)])
            self.sessions += [reply.json()["id"] for reply in replies]
        listed = {session["id"] for session in self.list().json()}
        assert listed == set(self.sessions), f"{self.name} lists {len(listed)} of {number} sessions"

    def _creation(self) -> bytes:
        kernel = {"id": self.kernels[next(self._turns) % len(self.kernels)]}
        return self._wire.request("POST", SESSIONS, self._body(kernel))

    def _start_kernel(self, _: int) -> str:
        response = self.server.post(SESSIONS, self._body({"name": "python3"}))
        response.raise_for_status()
        model = response.json()
        self.sessions.append(model["id"])
        kernel_id = str(model["kernel"]["id"])
        self.server.execute(kernel_id, "pass", CELL_TIMEOUT)
        return kernel_id

    def _body(self, kernel: dict[str, str]) -> dict[str, Any]:
        path = self._new_path()
        return {"path": path, "name": path, "type": "notebook", "kernel": kernel}

    def _new_path(self) -> str:
        """Return a path that was never used; all are equally long."""
        return f"folder/notebook-{next(self._paths):09d}.ipynb"

    def _next_session(self) -> str:
        return f"{SESSIONS}/{self.sessions[next(self._turns) % len(self.sessions)]}"

    # ------------------------------------------------------------------ requests

    def list(self) -> Reply:
        """List all sessions."""
        return self._wire.exchange(self._wire.request("GET", SESSIONS))

    def read(self) -> Reply:
        """Read one session, another one each time."""
        return self._wire.exchange(self._wire.request("GET", self._next_session()))

    def get(self, path: str) -> Reply:
        """Ask for anything."""
        return self._wire.exchange(self._wire.request("GET", path))

    def take_over(self, lines: Iterable[dict[str, Any]]) -> None:
        """Import sessions."""
        document = "\n".join(map(json.dumps, lines)).encode()
        reply = self.server.request("POST", IMPORT, content=document, timeout=CELL_TIMEOUT)
        reply.raise_for_status()

    def scrape(self) -> Reply:
        """Read the metrics."""
        return self._wire.exchange(self._wire.request("GET", METRICS))

    def rename(self, number: int = 1) -> Renaming:
        """Rename different sessions at once, others each time."""
        paths = [self._new_path() for _ in range(number)]
        requests = [
            self._wire.request("PATCH", self._next_session(), {"path": path}) for path in paths
        ]
        replies = self._wire.exchange_all(requests)
        for path, reply in zip(paths, replies, strict=True):
            assert path.encode() in reply.body, f"{path} is not in {reply.body!r}"
        return Renaming(paths, replies[-1].seconds)

    def answer(self, body: bytes) -> None:
        """Set the constant answer."""
        self._wire.exchange(self._wire.request("PUT", constant.PATH, body))

    def constant(self, method: str = "GET", number: int = 1) -> Reply:
        """Ask for the constant answer as often as said at once."""
        body = {"path": self._new_path()} if method == "PATCH" else None
        request = self._wire.request(method, constant.PATH, body)
        return self._wire.exchange_all([request] * number)[-1]

    def stored(self, paths: Sequence[str]) -> int:
        """Return how many of the paths the database file has."""
        [file] = self.server.home.data_dir.rglob("*.sqlite")
        marks = ",".join("?" * len(paths))
        with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as connection:
            select = f"SELECT count(*) FROM session WHERE path IN ({marks})"
            return int(connection.execute(select, paths).fetchone()[0])

    # ------------------------------------------------------------------ kernels

    def connect(self) -> None:
        """Open a websocket to each kernel, to use it."""
        self._channels = [self.server.connect(kernel_id) for kernel_id in self.kernels]

    def disconnect(self) -> None:
        """Close the websockets."""
        for channel in self._channels:
            channel.close()
        self._channels = []

    def use_kernels(self, number: int) -> None:
        """Have kernels run something, others each time: each is busy, and then idle."""
        for _ in range(number):
            channels = self._channels[next(self._turns) % len(self._channels)]
            request = execute_request("pass", uuid4().hex)
            run_cell(channels, request, time.monotonic() + CELL_TIMEOUT)
