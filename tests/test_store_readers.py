"""Others open the database and close it, in the server's process too: nothing committed is lost."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from clients import new_session, sessions
from disks import fill, small_disk
from homes import state_folder
from records import EVERYTHING, KERNEL, SESSION
from stores import fetch, read_elsewhere, stored

from jupyter_sessions_ext.errors import (
    StoreCorruptError,
    StoreGoneError,
    StoreUnavailableError,
)
from jupyter_sessions_ext.host import OWNS_LOCKS
from jupyter_sessions_ext.models import Change

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from servers import Home, Server

    from jupyter_sessions_ext.storage.sqlite import SQLiteStore


def log_of(file: Path) -> Path:
    return file.with_name(f"{file.name}-wal")


# -------------------------------------------------------------------------- another program


@pytest.mark.parametrize("how", ["health is asked", "it is downloaded", "it is listed and read"])
def test_what_is_acknowledged_after_others_have_read_the_database_is_there_after_a_kill(
    how: str, home: Home, server_factory: Callable[..., Server]
) -> None:
    in_root = home.root_dir / "state.sqlite"
    args = [] if how.startswith("health") else [f"--SessionManager.database_filepath={in_root}"]
    with server_factory(args=args) as server:
        first = new_session(server, "a.ipynb")
        file = in_root if args else state_folder(home) / "sessions.sqlite"
        for _ in range(2):
            if how == "health is asked":
                assert server.get("/sessions/api/v1/health").json() == {"status": "ok"}
            elif how == "it is downloaded":
                assert server.get("/files/state.sqlite").status_code == 200
            else:
                assert server.get("/api/contents/state.sqlite").status_code == 200
            assert read_elsewhere(file) == 1
        assert log_of(file).exists()
        second = new_session(server, "b.ipynb")
        renamed = server.patch(f"/api/sessions/{first['id']}", {"path": "c.ipynb"})
        assert renamed.status_code == 200
        server.restart()
        assert {s["path"]: s["kernel"]["id"] for s in sessions(server)} == {
            "b.ipynb": second["kernel"]["id"],
            "c.ipynb": first["kernel"]["id"],
        }


@pytest.mark.asyncio
async def test_others_may_read_back_up_and_write_while_it_is_open(
    store: SQLiteStore, file: Path, tmp_path: Path
) -> None:
    await store.commit(EVERYTHING)
    os.close(os.open(file, os.O_RDONLY))  # that frees SQLite's own locks
    with contextlib.closing(sqlite3.connect(file)) as other:
        with contextlib.closing(sqlite3.connect(tmp_path / "backup")) as backup:
            other.backup(backup)
        with other:
            other.execute("UPDATE session SET name='by another'")
        with contextlib.suppress(sqlite3.OperationalError):  # it may be refused, no more
            other.execute("VACUUM")
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("PRAGMA journal_mode=DELETE")
    assert stored(tmp_path / "backup").sessions == (SESSION,)
    await store.commit(Change(sessions=(replace(SESSION, session_id="t", path="t.ipynb"),)))
    assert [row[0] for row in await fetch(store, "SELECT name FROM session ORDER BY rowid")] == [
        "by another",
        "",
    ]


@pytest.mark.asyncio
async def test_who_closes_it_last_removes_the_log(store: SQLiteStore, file: Path) -> None:
    await store.commit(EVERYTHING)
    assert log_of(file).exists()
    store.close()
    assert not log_of(file).exists()


@pytest.mark.parametrize("moment", ["before", "in the middle"])
@pytest.mark.asyncio
async def test_a_log_that_is_gone_refuses_commits(
    moment: str, store: SQLiteStore, file: Path
) -> None:
    await store.commit(EVERYTHING)

    def remove(statement: str = "COMMIT") -> None:
        if statement == "COMMIT":
            log_of(file).unlink(missing_ok=True)

    if moment == "before":
        remove()
    else:
        await (await store.connection()).set_trace_callback(remove)
    for _ in range(2):
        with pytest.raises(StoreGoneError):
            await store.commit(Change(forgotten_sessions=(SESSION.session_id,)))
    with pytest.raises(StoreGoneError):
        await store.check()


# -------------------------------------------------------------------------- a full disk


@pytest.mark.asyncio
async def test_a_check_on_a_full_disk_tells_of_it(store: SQLiteStore, file: Path) -> None:
    with small_disk(file.parent):
        store.open()
        await store.commit(EVERYTHING)
        filler = fill(file.parent)
        for _ in range(3):
            with pytest.raises(StoreUnavailableError, match="full"):
                await store.check()
        filler.unlink()
        await store.check()
        store.close()


# -------------------------------------------------------------------------- a part is missing

TABLES = ("schema_version", "session", "session_detail", "kernel", "event", "server")


@pytest.mark.parametrize("table", TABLES)
def test_a_database_without_one_of_its_tables_is_corrupt(
    table: str, store: SQLiteStore, file: Path
) -> None:
    store.commit_now(EVERYTHING)
    with contextlib.closing(sqlite3.connect(file)) as connection, connection:
        connection.execute(f"DROP TABLE {table}")
    with pytest.raises(StoreCorruptError):
        stored(file)


@pytest.mark.parametrize(
    ("table", "column"), [("session", "type"), ("kernel", "phase"), ("event", "user")]
)
def test_a_database_without_one_of_its_columns_is_corrupt(
    table: str, column: str, store: SQLiteStore, file: Path
) -> None:
    store.commit_now(EVERYTHING)
    with contextlib.closing(sqlite3.connect(file)) as connection, connection:
        connection.execute(f"ALTER TABLE {table} RENAME COLUMN {column} TO other")
    with pytest.raises(StoreCorruptError, match=f"column {column} of table {table} is missing"):
        stored(file)


@pytest.mark.parametrize("table", TABLES)
def test_a_server_begins_anew_beside_a_database_without_one_of_its_tables(
    table: str, home: Home, server_factory: Callable[..., Server]
) -> None:
    with server_factory() as server:
        kernel_id = new_session(server)["kernel"]["id"]
        server.kill()
        file = state_folder(home) / "sessions.sqlite"
        with contextlib.closing(sqlite3.connect(file)) as connection, connection:
            connection.execute(f"DROP TABLE {table}")
        server.start()
        assert [s["kernel"]["id"] for s in sessions(server)] == [kernel_id]
        assert server.get("/sessions/api/v1/health").json() == {"status": "ok"}
        assert len([*file.parent.glob("sessions.sqlite.corrupt-*")]) >= 1
        new_session(server, "b.ipynb")


# -------------------------------------------------------------------------- what was deleted


@pytest.mark.asyncio
async def test_no_key_of_a_kernel_that_is_forgotten_stays_after_a_checkpoint(
    store: SQLiteStore, file: Path
) -> None:
    key = "a-key-of-a-kernel"
    kernel = replace(KERNEL, connection={"key": key})
    await store.commit(Change(kernels=(kernel,)))
    await store.commit(Change(forgotten_kernels=(kernel.kernel_id,)))
    await store.checkpoint()
    assert log_of(file).stat().st_size == 0
    for path in file.parent.iterdir():
        assert key.encode() not in path.read_bytes(), path
    await store.commit(EVERYTHING)
    assert (await fetch(store, "SELECT count(*) FROM kernel")) == [(1,)]


@pytest.mark.asyncio
async def test_a_checkpoint_does_not_wait_for_long_for_who_reads(
    store: SQLiteStore, file: Path
) -> None:
    await store.commit(EVERYTHING)
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN")
        other.execute("SELECT * FROM session").fetchall()
        await store.commit(Change(forgotten_sessions=(SESSION.session_id,)))
        await store.checkpoint()
        await store.check()
        other.execute("COMMIT")
    await store.checkpoint()
    assert log_of(file).stat().st_size == 0


@pytest.mark.skipif(not OWNS_LOCKS, reason="the system has no locks of open files")
@pytest.mark.asyncio
async def test_a_guard_stays_when_the_file_is_read(store: SQLiteStore, file: Path) -> None:
    await store.commit(EVERYTHING)
    for _ in range(3):
        os.close(os.open(file, os.O_RDONLY))
        with contextlib.closing(sqlite3.connect(file)) as other:
            other.execute("SELECT * FROM session").fetchall()
        assert log_of(file).exists()
