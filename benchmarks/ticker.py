"""Whether durable changes hold up the server's event loop."""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median, quantiles
from typing import Final

from servers import Home, Server

from . import lateness
from .figure import Figure, note

TARGET: Final = 1.5
CHANGES: Final = 200
ROOT: Final = Path(__file__).parents[1]
TICKING: Final = f"--ServerApp.jpserver_extensions={ {lateness.__name__: True} }"
STORES: Final = {"disk": [], "memory": ["--SessionManager.database_filepath=:memory:"]}


def measure(folder: Path, short: bool) -> list[Figure]:
    """Change a session on servers that keep it on disk and in memory, in turn."""
    rounds = 5 if short else 21
    p99s: dict[str, list[float]] = {name: [] for name in STORES}
    with ExitStack() as running:
        opened = {}
        for name, args in STORES.items():
            server = Server(
                Home(folder / name), args=[TICKING, *args], env={"PYTHONPATH": str(ROOT)}
            )
            running.callback(server.close)
            opened[name] = (server.start(), _open_session(server))
        # The first round warms up; it does not count.
        for number in range(rounds + 1):
            for name, (server, session_id) in opened.items():
                p99 = _time_changes(server, session_id)
                note(f"ticker {number}: {name} {p99 * 1000:.2f} ms")
                if number:
                    p99s[name].append(p99)
        for name, (server, _) in opened.items():
            is_kept = any(server.home.data_dir.rglob("*.sqlite"))
            assert is_kept is (name == "disk"), f"{name} is not what was measured"
    disk, memory = median(p99s["disk"]), median(p99s["memory"])
    return [
        Figure(
            name=f"p99 lateness of a {lateness.INTERVAL * 1000:g} ms ticker, disk / memory",
            measured=disk / memory,
            target=TARGET,
            detail=f"medians {disk * 1000:.2f} ms / {memory * 1000:.2f} ms of {rounds} runs each "
            f"of {CHANGES} PATCHes; an fsync takes {fsync_time(folder) * 1000:.2f} ms",
        )
    ]


def _open_session(server: Server) -> str:
    """Start a session, wait until its kernel is idle, and return the session's id."""
    kernel = {"name": "python3"}
    response = server.post(
        "/api/sessions", {"path": "a.ipynb", "name": "", "type": "notebook", "kernel": kernel}
    )
    response.raise_for_status()
    model = response.json()
    server.execute(model["kernel"]["id"], "pass")
    return str(model["id"])


def _time_changes(server: Server, session_id: str) -> float:
    """Return the 99th percentile of the lateness, in seconds, while a session is renamed."""
    server.post(lateness.PATH).raise_for_status()
    for number in range(CHANGES):
        path = f"{time.time_ns()}-{number}.ipynb"
        server.patch(f"/api/sessions/{session_id}", {"path": path}).raise_for_status()
    late: list[float] = server.delete(lateness.PATH).raise_for_status().json()["late"]
    return quantiles(late, n=100, method="inclusive")[98]


def fsync_time(folder: Path) -> float:
    """Return the median seconds of an fsync: near zero where the folder is not on a disk."""
    times = []
    with (folder / "fsync").open("wb", buffering=0) as file:
        for _ in range(101):
            file.write(b"x" * 4096)
            began = time.perf_counter()
            os.fsync(file)
            times.append(time.perf_counter() - began)
    return median(times)
