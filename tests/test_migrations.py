"""Files of other versions and of jupyter_server's own: migrated, or left untouched."""

from __future__ import annotations

import contextlib
import sqlite3
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from jupyter_server.services.contents.manager import ContentsManager
from jupyter_server.services.kernels.kernelmanager import MappingKernelManager
from jupyter_server.services.sessions.sessionmanager import SessionManager as StockSessionManager
from records import EVERYTHING, SESSION
from stores import MakesStores, digests, fetch, stored

from jupyter_sessions_ext.errors import SchemaTooNewError, StoreUnavailableError
from jupyter_sessions_ext.models import SYSTEM, SessionRecord, SessionState
from jupyter_sessions_ext.storage import sqlite
from jupyter_sessions_ext.storage.migrations import LATEST, MIGRATIONS, Migration
from jupyter_sessions_ext.storage.sqlite import SQLiteStore


def test_a_new_file_has_the_latest_schema(store: SQLiteStore, file: Path) -> None:
    with contextlib.closing(sqlite3.connect(file)) as connection:
        versions = list(connection.execute("SELECT version, name FROM schema_version"))
    assert versions == [(m.version, m.name) for m in MIGRATIONS]
    assert [p.name for p in file.parent.iterdir() if "backup" in p.name] == []


@pytest.mark.parametrize("journal", ["WAL", "DELETE"])
def test_a_newer_schema_is_refused_and_its_file_left_untouched(file: Path, journal: str) -> None:
    with contextlib.closing(sqlite3.connect(file)) as connection:
        connection.execute(f"PRAGMA journal_mode={journal}")
        connection.execute("CREATE TABLE schema_version (version INTEGER, name, applied_at)")
        connection.execute("INSERT INTO schema_version VALUES (?, '', '')", (LATEST + 1,))
        connection.commit()
    before = digests(file.parent)
    for wal in (True, False):
        with pytest.raises(SchemaTooNewError) as refusal:
            SQLiteStore(str(file), wal=wal).open()
        assert (refusal.value.location, refusal.value.found) == (str(file), LATEST + 1)
        assert digests(file.parent) == before


@contextlib.contextmanager
def stock(file: Path) -> Iterator[StockSessionManager]:
    """Use jupyter_server's own session manager on a file."""
    manager = StockSessionManager(
        kernel_manager=MappingKernelManager(),
        contents_manager=ContentsManager(),
        database_filepath=str(file),
    )
    yield manager
    manager.close()
    manager.connection.close()


def insert(manager: StockSessionManager, session: SessionRecord) -> None:
    """Insert a session with the statement of jupyter_server's ``save_session``."""
    manager.cursor.execute("INSERT INTO session VALUES (?,?,?,?,?)", tuple(session.row().values()))


def rows(manager: StockSessionManager) -> list[dict[str, Any]]:
    return [dict(row) for row in manager.cursor.execute("SELECT * FROM session").fetchall()]


STOCK_SESSIONS = [
    SessionRecord(session_id=i, path=f"{i}.ipynb", type="notebook", kernel_id=i) for i in "cab"
]


@pytest.fixture
def stock_file(file: Path) -> Path:
    with stock(file) as manager:
        for session in STOCK_SESSIONS:
            insert(manager, session)
    return file


def test_a_stock_file_is_taken_over_with_its_sessions_in_order(stock_file: Path) -> None:
    assert [s.row() for s in stored(stock_file).sessions] == [s.row() for s in STOCK_SESSIONS]
    assert {s.state for s in stored(stock_file).sessions} == {SessionState.LIVE}


def test_a_stock_file_is_backed_up_before_for_its_user_alone(stock_file: Path) -> None:
    stock_file.chmod(0o644)
    stored(stock_file)
    backup = stock_file.with_name(f"{stock_file.name}.backup-v0")
    assert stat.S_IMODE(backup.stat().st_mode) == 0o600
    with stock(backup) as manager:
        assert rows(manager) == [s.row() for s in STOCK_SESSIONS]


def test_a_stock_file_with_several_rows_of_one_id_keeps_the_first(stock_file: Path) -> None:
    with stock(stock_file) as manager:
        insert(manager, replace(STOCK_SESSIONS[0], path="second"))
    assert [s.row() for s in stored(stock_file).sessions] == [s.row() for s in STOCK_SESSIONS]


@pytest.mark.asyncio
async def test_a_file_that_was_stocks_has_the_schema_of_a_new_one(
    stock_file: Path, tmp_path: Path, make_store: MakesStores
) -> None:
    schema = "SELECT type, name, tbl_name, sql FROM sqlite_master ORDER BY name"
    new = make_store(tmp_path / "new.sqlite")
    assert await fetch(make_store(stock_file), schema) == await fetch(new, schema)


@pytest.mark.asyncio
async def test_stock_can_use_a_file_afterwards(stock_file: Path, make_store: MakesStores) -> None:
    store = make_store(stock_file)
    await store.commit(EVERYTHING)
    store.close()
    added = SessionRecord(session_id="added", path="added.ipynb", type="file", kernel_id="x")
    with stock(stock_file) as manager:
        insert(manager, added)
        assert rows(manager) == [s.row() for s in (*STOCK_SESSIONS, SESSION, added)]
    found = stored(stock_file).sessions
    assert [s.row() for s in found] == [s.row() for s in (*STOCK_SESSIONS, SESSION, added)]
    read = found[-1]
    assert found[-2:] == (SESSION, replace(added, created_at=read.created_at, since=read.since))


def test_a_migration_that_fails_leaves_the_file_to_stock(
    stock_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = Migration(1, "broken", (*MIGRATIONS[0].sqlite, "CREATE NONSENSE"))
    monkeypatch.setattr(sqlite, "MIGRATIONS", (broken,))
    with pytest.raises(StoreUnavailableError):
        stored(stock_file)
    with stock(stock_file) as manager:
        assert rows(manager) == [s.row() for s in STOCK_SESSIONS]
    monkeypatch.undo()
    assert [s.row() for s in stored(stock_file).sessions] == [s.row() for s in STOCK_SESSIONS]


def test_a_session_of_an_older_version_is_told_who_created_it(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "MIGRATIONS", MIGRATIONS[:2])
    with contextlib.suppress(StoreUnavailableError):  # there is no such column yet
        stored(file)
    monkeypatch.undo()
    with contextlib.closing(sqlite3.connect(file)) as connection:
        for session_id in ("ada's", "nobody's"):
            connection.execute("INSERT INTO session (session_id) VALUES (?)", (session_id,))
            connection.execute(
                "INSERT INTO session_detail (session_id, state, reason, created_at) "
                "VALUES (?, 'dormant', '', '2026-01-01T00:00:00+00:00')",
                (session_id,),
            )
        for user in ("ada", "bob"):
            connection.execute(
                "INSERT INTO event (time, session_id, action, detail, user) "
                "VALUES ('2026-01-01T00:00:00+00:00', ?, 'created', '', ?)",
                ("ada's", user),
            )
        connection.commit()
    assert [(s.session_id, s.created_by) for s in stored(file).sessions] == [
        ("ada's", "ada"),
        ("nobody's", SYSTEM),
    ]
