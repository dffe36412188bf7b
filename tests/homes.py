"""What servers leave in a home, and what a home can be given."""

from __future__ import annotations

import contextlib
import json
import re
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING

from servers import Home, kernel_processes, wait_until

from jupyter_sessions_ext.keeper.ring import read_ring

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psutil

TESTS = Path(__file__).parent


def state_folder(home: Home) -> Path:
    [folder] = (home.data_dir / "jupyter_sessions_ext").iterdir()
    return folder


@contextlib.contextmanager
def database(home: Home) -> Iterator[sqlite3.Connection]:
    """Open the stored state, to change what it says while no server runs."""
    connection = sqlite3.connect(state_folder(home) / "sessions.sqlite")
    with contextlib.closing(connection), connection:
        yield connection


@contextlib.contextmanager
def locked(home: Home) -> Iterator[sqlite3.Connection]:
    """Hold the stored state as another process may: no server can commit meanwhile."""
    with database(home) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield connection


def history(home: Home, session_id: str | None = None) -> list[tuple[str, str, str]]:
    """Return action, detail and user of a session's events, also while a server runs."""
    uri = f"{(state_folder(home) / 'sessions.sqlite').as_uri()}?mode=ro"
    query = "SELECT action, detail, user FROM event WHERE session_id IS ? ORDER BY event_id"
    with contextlib.closing(sqlite3.connect(uri, uri=True)) as connection:
        return [tuple(row) for row in connection.execute(query, (session_id,))]


def without_us(home: Home) -> dict[str, str]:
    """Return the environment of a server that has us disabled."""
    folder = home.path / "config-without-us"
    folder.mkdir(exist_ok=True)
    off = {"ServerApp": {"jpserver_extensions": {"jupyter_sessions_ext": False}}}
    (folder / "jupyter_server_config.json").write_text(json.dumps(off))
    return {"JUPYTER_CONFIG_DIR": str(folder)}


def kernel_process(home: Home, kernel_id: str) -> psutil.Process:
    [process] = [p for p in kernel_processes(home) if any(kernel_id in w for w in p.cmdline())]
    return process


def until_recorded(home: Home, text: str) -> None:
    """Wait until a keeper has a text, and that the kernel was idle after it."""

    def is_there() -> bool:
        files = [*(state_folder(home) / "keeper" / "rings").rglob("*.ring")]
        _, found, rest = max(files).read_bytes().rpartition(text.encode())
        return bool(found) and b'"idle"' in rest

    wait_until(is_there, 20, f"{text!r} was recorded")


def until_ended(home: Home, request: str, timeout: float = 20) -> None:
    """Wait until a keeper has heard that the kernel is done with a request."""

    def has_ended() -> bool:
        rings = (state_folder(home) / "keeper" / "rings").iterdir()
        found = (
            data[max(0, at.start() - 1000) : at.start()]
            for ring in rings
            for data in read_ring(ring)
            for at in re.finditer(b'"idle"', data)
        )
        return any(request.encode() in parent for parent in found)

    wait_until(has_ended, timeout, f"{request} had ended")
