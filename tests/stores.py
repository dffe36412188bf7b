"""SQLite stores that tests make, and what is in their files."""

from __future__ import annotations

import hashlib
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any, Protocol

from jupyter_sessions_ext.models import Snapshot
from jupyter_sessions_ext.storage.sqlite import SQLiteStore


class MakesStores(Protocol):
    def __call__(self, location: Path | str = ..., *, wal: bool = True) -> SQLiteStore: ...


def stored(file: Path) -> Snapshot:
    """Return what a new server finds in a file."""
    return SQLiteStore(str(file)).open()


def digests(folder: Path) -> dict[str, str]:
    """Return the hash of each file below a folder, by its path there."""
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in folder.rglob("*")
        if file.is_file()
    }


async def fetch(store: SQLiteStore, sql: str) -> list[tuple[Any, ...]]:
    connection = await store.connection()
    return [tuple(row) for row in await connection.execute_fetchall(sql)]


async def run(store: SQLiteStore, sql: str) -> None:
    await (await store.connection()).execute(sql)


READS = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
print(connection.execute("SELECT count(*) FROM session").fetchone()[0])
connection.close()
"""


def read_elsewhere(file: Path) -> int:
    """Have another program open the database for writing, read and close it."""
    program = shutil.which("sqlite3")
    command = (
        [program, str(file), "SELECT count(*) FROM session"]
        if program
        else [sys.executable, "-c", READS, str(file)]
    )
    return int(subprocess.run(command, capture_output=True, check=True, timeout=20).stdout)


def modes(folder: Path) -> dict[str, int]:
    return {p.name: stat.S_IMODE(p.stat().st_mode) for p in folder.iterdir()}
