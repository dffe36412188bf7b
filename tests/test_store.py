"""The store's contract, on SQLite: a change is durable and whole, or refused and absent."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Protocol

import pytest
from conftest import require
from hypothesis import given, settings
from hypothesis import strategies as st
from jupyter_server.services.contents.manager import ContentsManager
from jupyter_server.services.kernels.kernelmanager import MappingKernelManager
from jupyter_server.services.sessions.sessionmanager import SessionManager as StockSessionManager

from jupyter_sessions_ext.errors import (
    SchemaTooNewError,
    StoreCorruptError,
    StoreUnavailableError,
)
from jupyter_sessions_ext.models import (
    Change,
    Event,
    KernelActivity,
    KernelPhase,
    KernelRecord,
    ProcessIdentity,
    ServerRecord,
    SessionRecord,
    SessionState,
    Snapshot,
)
from jupyter_sessions_ext.storage import sqlite
from jupyter_sessions_ext.storage.migrations import LATEST, MIGRATIONS, Migration
from jupyter_sessions_ext.storage.sqlite import MEMORY, SQLiteStore

WHEN = datetime(2024, 2, 29, 23, 59, 59, 999999, tzinfo=timezone.utc)
PROCESS = ProcessIdentity(pid=7, started=123.5, boot="b", namespace="pid:[1]", machine="host")
SESSION = SessionRecord(
    session_id="s",
    path="å/⌘ 'quoted'\n.ipynb",
    name="",
    type="notebook",
    kernel_id="k",
    state=SessionState.DORMANT,
    reason="culled",
    kernel_name="python3",
    created_at=WHEN,
)
KERNEL = KernelRecord(
    kernel_id="k",
    kernel_name="python3",
    phase=KernelPhase.STOPPING,
    machine="host",
    connection_file="kernel-k.json",
    connection={"key": b"\x00\xff secret", "shell_port": 5},
    launch={"cwd": "somewhere", "extra_arguments": ["--debug"]},
    provisioner={"keys": [{"key": b""}], "process": {"pid": None}},
    process=PROCESS,
    intent=replace(SESSION, session_id="t", state=SessionState.LIVE),
    execution_state="busy",
    last_activity=WHEN + timedelta(microseconds=1),
    started_at=WHEN,
    adoptions=3,
)
EVENT = Event(
    action="dormant", session_id="s", kernel_id="k", detail="culled", user="ada", time=WHEN
)
SERVER = ServerRecord(server_id="server", process=PROCESS, hostname="host", started_at=WHEN)
EVERYTHING = Change(sessions=(SESSION,), kernels=(KERNEL,), events=(EVENT,), server=SERVER)
LATER = Change(sessions=(replace(SESSION, session_id="later"),))


class MakesStores(Protocol):
    def __call__(self, location: Path | str = ..., *, wal: bool = True) -> SQLiteStore: ...


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "sessions.sqlite"


@pytest.fixture
def make_store(file: Path) -> Iterator[MakesStores]:
    """Make stores that are opened, and closed after the test."""
    with contextlib.ExitStack() as stack:

        def make(location: Path | str = file, *, wal: bool = True) -> SQLiteStore:
            store = SQLiteStore(str(location), wal=wal)
            store.open()
            stack.callback(store.close)
            return store

        yield make


@pytest.fixture
def store(make_store: MakesStores) -> SQLiteStore:
    return make_store()


@pytest.fixture(params=["file", "memory"])
def any_store(request: pytest.FixtureRequest, make_store: MakesStores) -> SQLiteStore:
    return make_store(MEMORY) if request.param == "memory" else make_store()


def stored(file: Path) -> Snapshot:
    """Return what a new server finds in a file."""
    return SQLiteStore(str(file)).open()


def digests(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()}


async def fetch(store: SQLiteStore, sql: str) -> list[tuple[Any, ...]]:
    connection = await store.connection()
    return [tuple(row) for row in await connection.execute_fetchall(sql)]


async def run(store: SQLiteStore, sql: str) -> None:
    await (await store.connection()).execute(sql)


# -------------------------------------------------------------------------- what is committed


@pytest.mark.asyncio
async def test_what_is_committed_is_loaded_again_equal(store: SQLiteStore, file: Path) -> None:
    await store.commit(EVERYTHING)
    assert stored(file) == Snapshot(sessions=(SESSION,), kernels=(KERNEL,))
    assert await store.events("s") == [EVENT]


def test_what_is_committed_at_start_is_loaded_again_equal(store: SQLiteStore, file: Path) -> None:
    store.commit_now(EVERYTHING)
    assert stored(file) == Snapshot(sessions=(SESSION,), kernels=(KERNEL,))


@pytest.mark.asyncio
async def test_records_of_defaults_only_are_loaded_again_equal(
    store: SQLiteStore, file: Path
) -> None:
    session = SessionRecord(session_id="s")
    kernel = KernelRecord(
        kernel_id="k",
        kernel_name="python3",
        phase=KernelPhase.STARTING,
        machine="",
        connection_file="",
    )
    await store.commit(Change(sessions=(session,), kernels=(kernel,)))
    assert stored(file) == Snapshot(sessions=(session,), kernels=(kernel,))


TEXT = st.text(st.characters(codec="utf-8"))
JSON_AND_BYTES = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXT | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
    max_leaves=5,
)


@pytest.fixture(scope="module")
def shared_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("shared") / "sessions.sqlite"
    SQLiteStore(str(file)).open()
    return file


@settings(max_examples=30, deadline=None, database=None)
@given(text=TEXT, value=JSON_AND_BYTES)
def test_any_text_and_any_provisioner_info_is_loaded_again_equal(
    shared_file: Path, text: str, value: Any
) -> None:
    session = replace(SESSION, path=text, name=text, reason=text)
    kernel = replace(KERNEL, execution_state=text, provisioner={"info": value})
    SQLiteStore(str(shared_file)).commit_now(Change(sessions=(session,), kernels=(kernel,)))
    assert stored(shared_file) == Snapshot(sessions=(session,), kernels=(kernel,))


@pytest.mark.asyncio
async def test_every_field_can_change_but_when_a_session_was_created(
    store: SQLiteStore, file: Path
) -> None:
    await store.commit(EVERYTHING)
    changed = SessionRecord(session_id="s", path=None, kernel_id="l", created_at=WHEN)
    kernel = replace(
        KERNEL, phase=KernelPhase.RUNNING, connection={}, process=None, intent=None, adoptions=0
    )
    later = replace(changed, created_at=WHEN + timedelta(days=1))
    await store.commit(Change(sessions=(later,), kernels=(kernel,)))
    assert stored(file) == Snapshot(sessions=(changed,), kernels=(kernel,))


@pytest.mark.asyncio
async def test_what_is_forgotten_is_gone_and_its_history_stays(
    store: SQLiteStore, file: Path
) -> None:
    await store.commit(EVERYTHING)
    await store.commit(Change(forgotten_sessions=("s",), forgotten_kernels=("k", "unknown")))
    assert stored(file) == Snapshot()
    assert await store.events("s") == [EVENT]
    assert await fetch(store, "SELECT count(*) FROM session_detail") == [(0,)]


@pytest.mark.asyncio
async def test_a_session_that_comes_back_is_as_it_is_given(store: SQLiteStore, file: Path) -> None:
    await store.commit(EVERYTHING)
    other = replace(SESSION, path="other", created_at=WHEN + timedelta(days=1))
    await store.commit(Change(forgotten_sessions=("s",), sessions=(other,)))
    assert stored(file).sessions == (other,)


@pytest.mark.asyncio
async def test_activity_changes_nothing_else_of_a_kernel(store: SQLiteStore, file: Path) -> None:
    await store.commit(EVERYTHING)
    at = WHEN + timedelta(hours=1)
    await store.commit(
        Change(
            activity=(
                KernelActivity(kernel_id="k", execution_state="idle", last_activity=at),
                KernelActivity(kernel_id="unknown", execution_state="idle", last_activity=at),
            )
        )
    )
    assert stored(file).kernels == (replace(KERNEL, execution_state="idle", last_activity=at),)


@pytest.mark.asyncio
async def test_history_is_told_in_order_and_goes_to_the_session_that_absorbs(
    any_store: SQLiteStore,
) -> None:
    first = [replace(EVENT, detail=str(n)) for n in range(3)]
    other = replace(EVENT, session_id="t")
    await any_store.commit(Change(sessions=(SESSION,), events=(*first[:2], other)))
    await any_store.commit(Change(events=(first[2],)))
    assert await any_store.events("s") == first
    await any_store.commit(Change(forgotten_sessions=("s",), absorbed=(("s", "t"),)))
    assert await any_store.events("s") == []
    assert await any_store.events("t") == [
        replace(e, session_id="t") for e in (*first[:2], other, first[2])
    ]


@pytest.mark.asyncio
async def test_records_are_loaded_in_the_order_in_which_they_were_created(
    store: SQLiteStore, file: Path
) -> None:
    ids = ["c", "a", "b"]
    for i in ids:
        await store.commit(
            Change(
                sessions=(replace(SESSION, session_id=i),), kernels=(replace(KERNEL, kernel_id=i),)
            )
        )
    await store.commit(
        Change(
            sessions=(replace(SESSION, session_id="c", path="renamed"),),
            kernels=(replace(KERNEL, kernel_id="c", phase=KernelPhase.RUNNING),),
        )
    )
    assert [s.session_id for s in stored(file).sessions] == ids
    assert [k.kernel_id for k in stored(file).kernels] == ids


def test_of_the_servers_only_the_latest_hundred_are_kept(store: SQLiteStore, file: Path) -> None:
    servers = [
        replace(SERVER, server_id=f"{n:03}", started_at=WHEN + timedelta(seconds=n))
        for n in range(103)
    ]
    store.commit_now(Change(server=servers[-1]))
    with contextlib.closing(sqlite3.connect(file)) as connection, connection:
        connection.executemany(
            "INSERT INTO server SELECT ?, process, hostname, ?, NULL FROM server LIMIT 1",
            [(server.server_id, server.started_at.isoformat()) for server in servers[1:-1]],
        )
    store.commit_now(Change(server=servers[0]))
    with contextlib.closing(sqlite3.connect(file)) as connection:
        ids = [i for (i,) in connection.execute("SELECT server_id FROM server ORDER BY server_id")]
    assert ids == [server.server_id for server in servers[3:]]


@pytest.mark.asyncio
async def test_a_database_in_memory_has_the_same_tables(make_store: MakesStores) -> None:
    tables = "SELECT name, sql FROM sqlite_master WHERE name != 'schema_version' ORDER BY name"
    in_memory, in_file = make_store(MEMORY), make_store()
    await in_memory.commit(EVERYTHING)
    assert await fetch(in_memory, tables) == await fetch(in_file, tables)
    assert await fetch(in_memory, "SELECT * FROM session") == [tuple(SESSION.row().values())]


# -------------------------------------------------------------------------- all or nothing


@pytest.mark.parametrize("table", ["session", "session_detail", "kernel", "event", "server"])
@pytest.mark.asyncio
async def test_a_commit_that_fails_in_the_middle_changes_nothing(
    any_store: SQLiteStore, table: str
) -> None:
    """Whichever table refuses: none of them is changed, and the next two commits work."""
    before = replace(SESSION, path="before")
    await any_store.commit(Change(sessions=(before,), events=(EVENT,)))
    await run(
        any_store,
        f"CREATE TEMP TRIGGER refuse BEFORE INSERT ON {table} "
        "BEGIN SELECT RAISE(ABORT, 'injected'); END",
    )
    change = replace(EVERYTHING, sessions=(SESSION, replace(SESSION, session_id="new")))
    with pytest.raises(StoreUnavailableError, match="injected"):
        await any_store.commit(change)
    assert await fetch(any_store, "SELECT session_id, path FROM session") == [("s", "before")]
    assert await fetch(any_store, "SELECT count(*) FROM session_detail") == [(1,)]
    assert await fetch(any_store, "SELECT count(*) FROM event") == [(1,)]
    assert await fetch(any_store, "SELECT count(*) FROM kernel") == [(0,)]
    assert await fetch(any_store, "SELECT count(*) FROM server") == [(0,)]

    await run(any_store, "DROP TRIGGER refuse")
    await any_store.commit(change)
    await any_store.commit(LATER)
    assert await fetch(any_store, "SELECT session_id FROM session ORDER BY rowid") == [
        ("s",),
        ("new",),
        ("later",),
    ]


@pytest.mark.parametrize("value", [["a list"], 1 << 70, "lone \ud800 surrogate"])
@pytest.mark.asyncio
async def test_a_value_that_cannot_be_stored_leaves_nothing_of_its_change(
    store: SQLiteStore, file: Path, value: Any
) -> None:
    bad = replace(SESSION, session_id="bad", name=value)
    with pytest.raises((StoreUnavailableError, ValueError, OverflowError)):
        await store.commit(replace(EVERYTHING, sessions=(SESSION, bad)))
    assert stored(file) == Snapshot()
    await store.commit(LATER)
    assert stored(file).sessions == LATER.sessions


def test_a_commit_at_start_that_fails_in_the_middle_changes_nothing(
    store: SQLiteStore, file: Path
) -> None:
    with contextlib.closing(sqlite3.connect(file)) as connection:
        connection.execute(
            "CREATE TRIGGER refuse BEFORE INSERT ON server "
            "BEGIN SELECT RAISE(ABORT, 'injected'); END"
        )
    with pytest.raises(StoreUnavailableError, match="injected"):
        store.commit_now(EVERYTHING)
    assert stored(file) == Snapshot()
    store.commit_now(LATER)
    assert stored(file).sessions == LATER.sessions


@pytest.mark.parametrize("moment", ["SELECT state", "BEGIN", "INSERT INTO session ", "COMMIT"])
@pytest.mark.asyncio
async def test_a_commit_that_is_cancelled_is_whole_or_absent_and_blocks_no_later_one(
    store: SQLiteStore, file: Path, moment: str
) -> None:
    """The statement that runs at the moment of the cancellation runs to its end all the same."""
    connection = await store.connection()
    loop = asyncio.get_running_loop()
    commit = asyncio.ensure_future(store.commit(EVERYTHING))

    def cancel(statement: str) -> None:
        if statement.startswith(moment):
            loop.call_soon_threadsafe(commit.cancel)

    await connection.set_trace_callback(cancel)
    with pytest.raises(asyncio.CancelledError):
        await commit
    await connection.set_trace_callback(lambda _: None)

    await store.commit(LATER)
    found = stored(file)
    assert found.sessions in [LATER.sessions, (SESSION, *LATER.sessions)]
    assert bool(found.kernels) == (SESSION in found.sessions)


@pytest.mark.asyncio
async def test_a_commit_waits_for_a_writer_and_is_refused_when_that_one_stays(
    monkeypatch: pytest.MonkeyPatch, make_store: MakesStores, file: Path
) -> None:
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT", 0.05)
    store = make_store()
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as administrator:
        administrator.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailableError, match="locked"):
            await store.commit(EVERYTHING)
        assert await store.events("s") == []
        administrator.execute("ROLLBACK")
    await store.commit(EVERYTHING)
    assert stored(file).sessions == (SESSION,)


# -------------------------------------------------------------------------- files that are not ours


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
    assert found[-2:] == (SESSION, replace(added, created_at=found[-1].created_at))


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


# -------------------------------------------------------------------------- broken files


def test_a_file_that_is_no_database_is_corrupt(file: Path) -> None:
    file.write_bytes(b"garbage" * 1000)
    with pytest.raises(StoreCorruptError) as error:
        stored(file)
    assert error.value.location == str(file)


def test_a_file_with_a_broken_page_is_corrupt(store: SQLiteStore, file: Path) -> None:
    store.commit_now(EVERYTHING)
    store.close()
    content = bytearray(file.read_bytes())
    content[100:4096] = b"\xff" * 3996  # the page of the schema, behind the header
    file.write_bytes(content)
    with pytest.raises(StoreCorruptError):
        stored(file)


@pytest.mark.parametrize(
    ("column", "text"),
    [
        ("connection", "no JSON"),
        ("process", json.dumps({"pid": 1})),
        ("process", json.dumps([1])),
        ("intent", json.dumps({"session_id": "s"})),
        ("phase", "unheard of"),
        ("last_activity", "yesterday"),
    ],
)
def test_a_record_that_cannot_be_read_is_a_refusal(
    store: SQLiteStore, file: Path, column: str, text: str
) -> None:
    """Whatever a file holds, opening it raises nothing but the store's own errors."""
    store.commit_now(EVERYTHING)
    with contextlib.closing(sqlite3.connect(file)) as connection, connection:
        connection.execute(f"UPDATE kernel SET {column}=?", (text,))
    with pytest.raises(StoreUnavailableError):
        stored(file)


@pytest.mark.parametrize("used", [True, False], ids=["after a commit", "before the first commit"])
@pytest.mark.parametrize("replaced", [True, False], ids=["replaced", "deleted"])
@pytest.mark.asyncio
async def test_a_file_that_is_deleted_or_replaced_refuses_commits(
    store: SQLiteStore, file: Path, used: bool, replaced: bool
) -> None:
    """No commit goes where the next server does not find it, and no empty file is left there."""
    if used:
        await store.commit(EVERYTHING)
    move_away(file)
    if replaced:
        stored(file)
    for _ in range(2):
        with pytest.raises(StoreUnavailableError, match="deleted or replaced"):
            await store.commit(LATER)
    assert (file.name in digests(file.parent)) == replaced
    assert not replaced or stored(file) == Snapshot()


def test_a_commit_without_a_loop_makes_no_file_in_a_deleted_ones_place(
    store: SQLiteStore, file: Path
) -> None:
    """The next server would take it for a state in which nothing was kept."""
    store.commit_now(EVERYTHING)
    file.unlink()
    with pytest.raises(StoreUnavailableError):
        store.commit_now(LATER)
    assert not file.exists()


def move_away(file: Path) -> None:
    file.rename(file.with_name("moved.sqlite"))


def test_a_folder_that_is_not_there_is_a_refusal(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailableError):
        SQLiteStore(str(tmp_path / "missing" / "sessions.sqlite")).open()


@pytest.mark.parametrize("wal", [True, False])
def test_what_a_killed_process_was_writing_is_not_there(
    make_store: MakesStores, file: Path, wal: bool
) -> None:
    """Pages of the unfinished transaction are in the file already, or in the log."""
    make_store(wal=wal).commit_now(EVERYTHING)
    script = """
        import os, signal, sqlite3, sys

        connection = sqlite3.connect(sys.argv[1], isolation_level=None)
        connection.execute("PRAGMA cache_size=2")
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("UPDATE schema_version SET version = 1000")
        for table in ("session", "session_detail", "kernel", "event", "server"):
            connection.execute(f"DELETE FROM {table}")
        rows = [(str(n), "x" * 1000) for n in range(200)]
        connection.executemany("INSERT INTO session (session_id, path) VALUES (?, ?)", rows)
        os.kill(os.getpid(), signal.SIGKILL)
        """
    before = file.stat().st_size
    killed = subprocess.run([sys.executable, "-c", textwrap.dedent(script), file], check=False)
    assert killed.returncode == -signal.SIGKILL
    written = file if not wal else file.with_name(f"{file.name}-wal")
    assert written.stat().st_size > before, "it had begun to write"
    store = make_store(wal=wal)
    assert stored(file) == Snapshot(sessions=(SESSION,), kernels=(KERNEL,))
    store.commit_now(LATER)
    assert stored(file).sessions == (SESSION, *LATER.sessions)


# -------------------------------------------------------------------------- the disk


def modes(folder: Path) -> dict[str, int]:
    return {p.name: stat.S_IMODE(p.stat().st_mode) for p in folder.iterdir()}


@pytest.mark.asyncio
async def test_its_files_are_for_their_user_alone(
    make_store: MakesStores, file: Path, request: pytest.FixtureRequest
) -> None:
    mask = os.umask(0)
    request.addfinalizer(lambda: os.umask(mask))
    await make_store().commit(EVERYTHING)
    names = {f"{file.name}{suffix}" for suffix in ("", "-wal", "-shm")}
    assert modes(file.parent) == dict.fromkeys(names, 0o600)


@pytest.mark.parametrize(("wal", "journal"), [(True, "wal"), (False, "delete")])
@pytest.mark.asyncio
async def test_each_commit_is_synced_to_the_disk(
    make_store: MakesStores, file: Path, wal: bool, journal: str
) -> None:
    store = make_store(wal=wal)
    await store.commit(EVERYTHING)
    assert await fetch(store, "PRAGMA journal_mode") == [(journal,)]
    full = 2
    assert await fetch(store, "PRAGMA synchronous") == [(full,)]
    assert file.with_name(f"{file.name}-wal").exists() == wal


@pytest.mark.asyncio
async def test_a_write_ahead_log_is_given_up_where_a_rollback_journal_is_asked_for(
    make_store: MakesStores, file: Path
) -> None:
    first = make_store(wal=True)
    await first.commit(EVERYTHING)
    first.close()
    store = make_store(wal=False)
    assert await fetch(store, "PRAGMA journal_mode") == [("delete",)]
    await store.commit(LATER)
    assert stored(file).sessions == (SESSION, *LATER.sessions)


@pytest.mark.asyncio
async def test_a_full_database_refuses_commits_and_goes_on_reading(
    store: SQLiteStore, file: Path
) -> None:
    """SQLite's own limit stands for the disk: the error is the same, and so is the way back."""
    await store.commit(EVERYTHING)
    [[pages]] = await fetch(store, "PRAGMA page_count")
    await run(store, f"PRAGMA max_page_count={pages}")
    large = Change(sessions=(replace(SESSION, session_id="large", name="x" * 100_000),))
    for _ in range(2):
        with pytest.raises(StoreUnavailableError, match="full"):
            await store.commit(large)
    assert await store.events("s") == [EVENT]
    await run(store, "PRAGMA max_page_count=1000000")
    await store.commit(large)
    assert stored(file).sessions == (SESSION, *large.sessions)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system of half a megabyte."""
    folder = tmp_path / "small"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(command, check=False, capture_output=True).returncode == 0
    except OSError:
        mounted = False
    require(mounted, "the right to mount a small file system")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Leave no byte free in a folder's file system; return the file that takes it all."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(512)):
            pass
    return filler


@pytest.mark.asyncio
async def test_a_full_disk_refuses_commits_and_goes_on_reading(
    small_disk: Path, make_store: MakesStores
) -> None:
    file = small_disk / "sessions.sqlite"
    store = make_store(file)
    await store.commit(EVERYTHING)
    filler = fill(small_disk)
    for _ in range(2):
        with pytest.raises(StoreUnavailableError, match="full"):
            await store.commit(replace(LATER, events=(replace(EVENT, detail="x" * 10_000),)))
    assert await store.events("s") == [EVENT]
    filler.unlink()
    await store.commit(LATER)
    assert stored(file).sessions == (SESSION, *LATER.sessions)


@pytest.mark.asyncio
async def test_what_a_full_disk_holds_can_be_opened(
    small_disk: Path, make_store: MakesStores
) -> None:
    file = small_disk / "sessions.sqlite"
    make_store(file).commit_now(EVERYTHING)
    filler = fill(small_disk)
    store = SQLiteStore(str(file))
    assert store.open() == Snapshot(sessions=(SESSION,), kernels=(KERNEL,))
    with pytest.raises(StoreUnavailableError):
        store.commit_now(LATER)
    with pytest.raises(StoreUnavailableError):
        await store.commit(LATER)
    filler.unlink()
    await store.commit(LATER)
    assert stored(file).sessions == (SESSION, *LATER.sessions)
    store.close()


# -------------------------------------------------------------------------- beside other processes


@pytest.mark.parametrize("wal", [True, False])
@pytest.mark.asyncio
async def test_peeking_shows_what_is_held_and_changes_nothing(
    make_store: MakesStores, file: Path, wal: bool
) -> None:
    store = make_store(wal=wal)
    held = Snapshot(sessions=(SESSION,), kernels=(KERNEL,))
    await store.commit(EVERYTHING)
    assert SQLiteStore(str(file)).peek() == held, "while a server uses it"
    store.close()
    for thread in workers():
        thread.join(10)
    before = digests(file.parent)[file.name]
    assert SQLiteStore(str(file)).peek() == held, "while none does"
    assert digests(file.parent)[file.name] == before
    assert set(modes(file.parent).values()) == {0o600}


def test_peeking_makes_no_file(file: Path) -> None:
    with pytest.raises(StoreUnavailableError):
        SQLiteStore(str(file)).peek()
    assert not file.exists()


# -------------------------------------------------------------------------- the end


def workers() -> list[threading.Thread]:
    """Return the threads that databases may work in: all but this one and the pools'."""
    return [
        thread
        for thread in threading.enumerate()
        if thread is not threading.main_thread() and "worker" in thread.name
    ]


@pytest.fixture
def threads_end() -> Iterator[None]:
    """Check that all threads that a test starts have ended, or end without being asked."""
    before = set(threading.enumerate())
    yield
    for thread in set(threading.enumerate()) - before:
        thread.join(10)
        assert not thread.is_alive(), thread


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@pytest.mark.usefixtures("threads_end")
def test_a_store_that_was_never_used_closes(file: Path) -> None:
    store = SQLiteStore(str(file))
    store.open()
    store.close()
    store.close()


@pytest.mark.usefixtures("threads_end")
@pytest.mark.parametrize("location", ["file", "memory"])
@pytest.mark.asyncio
async def test_closing_twice_leaves_no_thread(file: Path, location: str) -> None:
    store = SQLiteStore(str(file) if location == "file" else MEMORY)
    store.open()
    await store.commit(EVERYTHING)
    store.close()
    store.close()


@pytest.mark.usefixtures("threads_end")
def test_closing_without_a_running_loop_leaves_no_thread(
    file: Path, loop: asyncio.AbstractEventLoop
) -> None:
    store = SQLiteStore(str(file))
    store.open()
    loop.run_until_complete(store.commit(EVERYTHING))
    store.close()
    assert stored(file).sessions == (SESSION,)


@pytest.mark.usefixtures("threads_end")
def test_closing_after_the_loop_was_closed_leaves_no_thread(
    file: Path, loop: asyncio.AbstractEventLoop
) -> None:
    store = SQLiteStore(str(file))
    store.open()
    loop.run_until_complete(store.commit(EVERYTHING))
    loop.close()
    store.close()
    assert stored(file).sessions == (SESSION,)


@pytest.mark.usefixtures("threads_end")
@pytest.mark.parametrize("moment", ["SELECT state", "BEGIN", "INSERT INTO session ", "COMMIT"])
@pytest.mark.asyncio
async def test_closing_in_the_middle_of_a_commit_leaves_it_whole_or_refused(
    file: Path, moment: str
) -> None:
    store = SQLiteStore(str(file))
    store.open()
    loop = asyncio.get_running_loop()

    def close(statement: str) -> None:
        if statement.startswith(moment):
            loop.call_soon_threadsafe(store.close)

    await (await store.connection()).set_trace_callback(close)
    refused = False
    try:
        await store.commit(EVERYTHING)
    except StoreUnavailableError:
        refused = True
    assert stored(file).sessions == (() if refused else (SESSION,))


@pytest.mark.asyncio
async def test_a_closed_store_refuses(any_store: SQLiteStore) -> None:
    await any_store.commit(EVERYTHING)
    any_store.close()
    with pytest.raises(StoreUnavailableError, match="closed"):
        await any_store.commit(LATER)
    with pytest.raises(StoreUnavailableError, match="closed"):
        await any_store.events("s")
    with pytest.raises(StoreUnavailableError, match="closed"):
        await any_store.connection()


@pytest.mark.parametrize("end", ["", "store.close()"], ids=["never closed", "closed"])
@pytest.mark.parametrize("location", ["file", "memory"])
def test_an_interpreter_ends_quietly_with_its_store(file: Path, end: str, location: str) -> None:
    script = f"""
        import asyncio, sys
        from jupyter_sessions_ext.models import Change, SessionRecord
        from jupyter_sessions_ext.storage.sqlite import SQLiteStore

        store = SQLiteStore(sys.argv[1])
        store.open()
        change = Change(sessions=(SessionRecord(session_id="s"),))
        asyncio.run(store.commit(change))
        {end}
        """
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), MEMORY if location == "memory" else file],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    if location == "file":
        assert [s.session_id for s in stored(file).sessions] == ["s"]


@pytest.mark.asyncio
async def test_two_tasks_that_ask_first_share_one_connection(store: SQLiteStore) -> None:
    first, second = await asyncio.gather(store.connection(), store.connection())
    assert first is second


@pytest.mark.usefixtures("threads_end")
def test_a_file_can_be_opened_again_at_once(file: Path, loop: asyncio.AbstractEventLoop) -> None:
    """As jupyter_server's own tests do: the worker of what was closed may not have ended yet."""
    for n in range(5):
        store = SQLiteStore(str(file))
        assert len(store.open().sessions) == n
        change = Change(sessions=(replace(SESSION, session_id=str(n)),))
        loop.run_until_complete(store.commit(change))
        store.close()
