"""What the extension adds to a server's start when nothing is stored."""

from __future__ import annotations

import time
from contextlib import suppress
from statistics import median
from typing import TYPE_CHECKING, Final
from unittest import mock

import httpx
import servers
from servers import Home, Server

from .figure import Figure, note

if TYPE_CHECKING:
    from pathlib import Path

TARGET: Final = 1.1
STOCK: Final = "--ServerApp.jpserver_extensions={'jupyter_sessions_ext': False}"
POLL_INTERVAL: Final = 0.003
"""Seconds; the tests' own is too coarse to tell starts apart that differ by a few percent."""


def measure(folder: Path, short: bool) -> list[Figure]:
    """Start servers with and without the extension in turn, each in a new home."""
    times: dict[str, list[float]] = {"ours": [], "stock": []}
    # The first round fills the caches of the system and of Python; it does not count.
    for number in range((3 if short else 10) + 1):
        for name, args in (("ours", []), ("stock", [STOCK])):
            seconds = _time_start(folder / f"{name}-{number}", args)
            note(f"start {number}: {name} {seconds:.3f} s")
            if number:
                times[name].append(seconds)
    ours, stock = median(times["ours"]), median(times["stock"])
    return [
        Figure(
            name="server start, ours / stock",
            measured=ours / stock,
            target=TARGET,
            detail=f"medians {ours:.3f} s / {stock:.3f} s of {len(times['ours'])} starts each",
        )
    ]


def _time_start(folder: Path, args: list[str]) -> float:
    """Return the seconds from the process's start until HTTP answers."""
    server = Server(Home(folder), args=args)
    try:
        with suppress(httpx.ConnectError):
            server.get("/api")  # the client is made now, not while the time runs
        with mock.patch.object(servers, "POLL_INTERVAL", POLL_INTERVAL):
            began = time.perf_counter()
            server.start()
            seconds = time.perf_counter() - began
        started_ours = "jupyter_sessions_ext | extension was successfully loaded" in server.log
        assert started_ours is not bool(args), f"the wrong server was measured:\n{server.log}"
        return seconds
    finally:
        server.close()
