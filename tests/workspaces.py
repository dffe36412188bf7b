"""Workspaces that are opened as by servers that start, and what they keep."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from jupyter_sessions_ext import folder
from jupyter_sessions_ext.commits import Build
from jupyter_sessions_ext.folder import Place
from jupyter_sessions_ext.models import Change, SessionRecord
from jupyter_sessions_ext.storage.migrations import LATEST
from jupyter_sessions_ext.workspace import Workspace, new_kernel

LOG = logging.getLogger("workspace-under-test")
SESSION = SessionRecord(session_id="s", path="a.ipynb", type="notebook", kernel_id="k")
OTHER = replace(SESSION, session_id="t", path="b.ipynb")
KERNEL = new_kernel("k", "python3", "kernel-k.json")


def add(*sessions: SessionRecord) -> Build:
    return lambda _: Change(sessions=sessions)


class Opens:
    """Opens workspaces of one root folder, as servers do that start."""

    def __init__(self, state_dir: Path, root_dir: Path) -> None:
        self.state_dir = state_dir
        self.root_dir = root_dir
        self.opened: list[Workspace] = []

    def __call__(self, database: Path | str | None = None) -> Workspace:
        opened = Workspace(
            LOG,
            state_dir=str(self.state_dir),
            database=str(database) if database else None,
            kernels_on_stop="keep",
        )
        self.opened.append(opened)
        opened.open(str(self.root_dir))
        opened.finish_merge()
        return opened

    def place(self, number: int = 1) -> Place:
        return list(folder.places(self.state_dir, str(self.root_dir), None))[number - 1]


def place_of(opened: Workspace) -> Place:
    assert opened.place is not None
    return opened.place


def messages(caplog: pytest.LogCaptureFixture, level: int) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno == level]


def refuse(file: str) -> None:
    """Have a database refuse new sessions."""
    with contextlib.closing(sqlite3.connect(file)) as connection, connection:
        connection.execute(
            "CREATE TRIGGER refuse BEFORE INSERT ON session "
            "BEGIN SELECT RAISE(ABORT, 'injected'); END"
        )


def spoil(place: Place, how: str) -> None:
    """Make what is kept in a place something that must not be used, or cannot be read."""
    if how == "newer":
        with contextlib.closing(sqlite3.connect(place.database)) as connection, connection:
            connection.execute("INSERT INTO schema_version VALUES (?, '', '')", (LATEST + 1,))
    elif how == "garbage":
        Path(place.database).write_bytes(b"garbage" * 1000)
    elif how == "open to all":
        place.folder.chmod(0o777)
    elif how == "a link":
        place.folder.rename(place.folder.with_name("elsewhere"))
        place.folder.symlink_to("elsewhere")
    elif how == "a folder":
        Path(place.database).unlink()
        Path(place.database).mkdir()
    else:
        with contextlib.closing(sqlite3.connect(place.database)) as connection, connection:
            connection.execute("UPDATE kernel SET process=?", (how,))
