"""What a keeper takes of the machine: memory, with full rings and without, and time, when idle."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

import psutil
from clients import new_session
from kept import ask_keeper
from servers import Home, Server, keepers, wait_until

from jupyter_sessions_ext.keeper.protocol import DEFAULT_LIMIT
from jupyter_sessions_ext.keeper.ring import SEGMENTS

from .figure import Figure, note

if TYPE_CHECKING:
    from pathlib import Path

EMPTY_TARGET, FULL_TARGET, IDLE_TARGET = 30.0, 60.0, 0.1
AT_ONCE: Final = 2
IDLE: Final = 10.0
"""Seconds for which it has nothing to do."""
FULL: Final = DEFAULT_LIMIT * (SEGMENTS - 2) // SEGMENTS
"""Bytes that a ring has when it has dropped what was too much: files may differ in size."""
FILLS: Final = f"""
import sys, time
for _ in range({DEFAULT_LIMIT * 5 // 4 // 10_000}):
    sys.stdout.write("x" * 9_900 + "\\n")
    sys.stdout.flush()
    time.sleep(0.0005)
"""
"""A kernel drops what is too fast for the machine itself."""


def measure(folder: Path, short: bool) -> list[Figure]:
    """Fill the rings of many kernels, and look at the keeper then and before."""
    count = 10 if short else 50
    home = Home(folder / "home")
    total = f"--SessionsApp.journal_total={2 * count * DEFAULT_LIMIT}"
    with Server(home, args=[total]) as server:
        kernels = [new_session(server, "0.ipynb")["kernel"]["id"]]
        server.execute(kernels[0], "1")
        [keeper] = keepers(home)
        empty = _megabytes(keeper)
        kernels += [
            new_session(server, f"{number}.ipynb")["kernel"]["id"] for number in range(1, count)
        ]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(lambda kernel: server.execute(kernel, FILLS), kernels))
        wait_until(lambda: min(_sizes(home)) >= FULL, 60, "all rings were full")
        full, on_disk = _megabytes(keeper), sum(_sizes(home)) / 1e6
        note(f"resident: {count} rings are full")
        idle = _seconds(keeper)
        time.sleep(IDLE)
        idle = _seconds(keeper) - idle
    return [
        Figure(
            name="resident, with one kernel",
            measured=empty,
            target=EMPTY_TARGET,
            unit="MB",
            detail="the keeper's process",
        ),
        Figure(
            name=f"resident, with {count} kernels with full rings",
            measured=full,
            target=FULL_TARGET,
            unit="MB",
            detail=f"{on_disk:.0f} MB are in files",
        ),
        Figure(
            name="CPU of an idle keeper",
            measured=100 * idle / IDLE,
            target=IDLE_TARGET,
            unit="%",
            detail=f"with these, in {IDLE:.0f} s",
        ),
    ]


def _sizes(home: Home) -> list[int]:
    """Return how many bytes are kept of each kernel."""
    return [kept["bytes"] for kept in ask_keeper(home, "status")["kernels"].values()]


def _megabytes(process: psutil.Process) -> float:
    return float(process.memory_info().rss) / 1e6


def _seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
