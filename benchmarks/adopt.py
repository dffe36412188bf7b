"""How long a server that was killed needs to take charge of its kernels again."""

from __future__ import annotations

import re
import time
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from typing import TYPE_CHECKING, Final

from servers import Home, Server, wait_until

from .figure import Figure, note

if TYPE_CHECKING:
    from pathlib import Path

TARGET: Final = 0.5
AT_ONCE: Final = 4
"""Kernels that are started at the same time."""
ADOPTED: Final = re.compile(r"Adopted (\d+) kernels.* in ([\d.]+) s")


def measure(folder: Path, short: bool) -> list[Figure]:
    """Kill a server with live kernels, start it again, and read from its log what that took."""
    count, restarts = (8, 2) if short else (50, 5)
    starts, listed = [], []
    server = Server(Home(folder / "home"))
    try:
        server.start()
        with ThreadPoolExecutor(AT_ONCE) as pool:
            kernels = list(pool.map(lambda n: _open_session(server, n), range(count)))
        note(f"adopt: {count} kernels run")
        for _ in range(restarts):
            wait_until(lambda: _are_idle(server), 60, "all kernels were idle")
            server.kill()
            began = time.perf_counter()
            server.start()
            starts.append(time.perf_counter() - began)
            listed.append(len(server.get("/api/sessions").json()))
            note(f"adopt: HTTP answered after {starts[-1]:.3f} s and listed {listed[-1]} sessions")
        with ThreadPoolExecutor(AT_ONCE) as pool:
            kept = list(pool.map(lambda k: server.execute(k, "print(kept)").strip(), kernels))
        assert kept == [str(n) for n in range(count)], f"variables are not what they were: {kept}"
        adoptions = ADOPTED.findall(server.log)
    except BaseException:
        note(f"adopt: the server's log ends with\n{server.log[-4000:]}")
        raise
    finally:
        server.close()
    assert [int(number) for number, _ in adoptions] == [count] * restarts, f"it logged {adoptions}"
    seconds = [float(text) for _, text in adoptions]
    return [
        Figure(
            name=f"adoption of {count} kernels",
            measured=median(seconds),
            target=TARGET,
            unit="s",
            detail=f"median of {restarts}, {min(seconds):.3f} to {max(seconds):.3f} s; "
            f"from the process's start to HTTP {median(starts):.3f} s",
        ),
        Figure(
            name="sessions in the first list",
            measured=min(listed),
            target=count,
            at_least=True,
            detail=f"the least of {restarts} restarts; then all kernels had their variables",
        ),
    ]


def _are_idle(server: Server) -> bool:
    sessions = server.get("/api/sessions").json()
    return all(session["kernel"]["execution_state"] == "idle" for session in sessions)


def _open_session(server: Server, number: int) -> str:
    """Start a session, set a variable in its kernel, and return the kernel's id."""
    path = f"notebook-{number}.ipynb"
    kernel = {"name": "python3"}
    response = server.post(
        "/api/sessions", {"path": path, "name": path, "type": "notebook", "kernel": kernel}
    )
    response.raise_for_status()
    kernel_id = str(response.json()["kernel"]["id"])
    server.execute(kernel_id, f"kept = {number}")
    return kernel_id
