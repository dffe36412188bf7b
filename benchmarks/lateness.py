"""A server extension that records how late a timer on the server's event loop is."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Final

from jupyter_server.base.handlers import APIHandler
from jupyter_server.utils import url_path_join
from tornado import web

if TYPE_CHECKING:
    from jupyter_server.serverapp import ServerApp

PATH: Final = "/benchmarks/lateness"
INTERVAL: Final = 0.001
LONGEST: Final = 60.0
"""Seconds after which it ends if nobody ends it."""


class Ticker:
    """Sleeps again and again, and records by how many seconds it woke up too late."""

    def __init__(self) -> None:
        self._late: list[float] = []
        self._task: asyncio.Future[None] | None = None

    def start(self) -> None:
        """Begin anew."""
        self.stop()
        self._task = asyncio.ensure_future(self._tick())

    def stop(self) -> list[float]:
        """End, and return the lateness of each tick in seconds."""
        if self._task is not None:
            self._task.cancel()
            self._task = None
        late, self._late = self._late, []
        return late

    async def _tick(self) -> None:
        now = time.perf_counter()
        end = now + LONGEST
        while now < end:
            due = now + INTERVAL
            await asyncio.sleep(INTERVAL)
            now = time.perf_counter()
            self._late.append(now - due)


class LatenessHandler(APIHandler):
    """POST starts the ticker; DELETE ends it and answers what it recorded."""

    def initialize(self, ticker: Ticker) -> None:
        """Take the server's ticker."""
        self._ticker = ticker

    @web.authenticated
    def post(self) -> None:
        self._ticker.start()
        self.set_status(204)

    @web.authenticated
    async def delete(self) -> None:
        await self.finish({"late": self._ticker.stop()})


def _jupyter_server_extension_points() -> list[dict[str, Any]]:
    return [{"module": __name__}]


def _load_jupyter_server_extension(serverapp: ServerApp) -> None:
    path = url_path_join(serverapp.base_url, PATH)
    serverapp.web_app.add_handlers(".*$", [(path, LatenessHandler, {"ticker": Ticker()})])
