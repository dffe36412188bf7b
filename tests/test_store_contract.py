"""The store's contract, on SQLite: a change is durable and whole, or refused and absent."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from records import EVENT, EVERYTHING, KERNEL, LATER, SERVER, SESSION, WHEN
from stores import MakesStores, fetch, run, stored

from jupyter_sessions_ext.errors import StoreUnavailableError
from jupyter_sessions_ext.models import (
    Change,
    EventFilter,
    KernelActivity,
    KernelPhase,
    KernelRecord,
    SessionRecord,
    Snapshot,
)
from jupyter_sessions_ext.storage import sqlite
from jupyter_sessions_ext.storage.sqlite import MEMORY, SQLiteStore

# -------------------------------------------------------------------------- what is committed


@pytest.mark.asyncio
async def test_what_is_committed_is_loaded_again_equal(store: SQLiteStore, file: Path) -> None:
    await store.commit(EVERYTHING)
    assert stored(file) == Snapshot(sessions=(SESSION,), kernels=(KERNEL,))
    assert await store.events(EventFilter(session_id="s")) == [EVENT]


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
async def test_every_field_can_change_but_a_sessions_creation(
    store: SQLiteStore, file: Path
) -> None:
    await store.commit(EVERYTHING)
    changed = SessionRecord(
        session_id="s", path=None, kernel_id="l", created_at=WHEN, created_by="ada"
    )
    kernel = replace(
        KERNEL, phase=KernelPhase.RUNNING, connection={}, process=None, intent=None, adoptions=0
    )
    later = replace(changed, created_at=WHEN + timedelta(days=1), created_by="bob")
    await store.commit(Change(sessions=(later,), kernels=(kernel,)))
    assert stored(file) == Snapshot(sessions=(changed,), kernels=(kernel,))


@pytest.mark.asyncio
async def test_what_is_forgotten_is_gone_and_its_history_stays(
    store: SQLiteStore, file: Path
) -> None:
    await store.commit(EVERYTHING)
    await store.commit(Change(forgotten_sessions=("s",), forgotten_kernels=("k", "unknown")))
    assert stored(file) == Snapshot()
    assert await store.events(EventFilter(session_id="s")) == [EVENT]
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
    assert await any_store.events(EventFilter(session_id="s")) == first
    await any_store.commit(Change(forgotten_sessions=("s",), absorbed=(("s", "t"),)))
    assert await any_store.events(EventFilter(session_id="s")) == []
    assert await any_store.events(EventFilter(session_id="t")) == [
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
        assert await store.events(EventFilter(session_id="s")) == []
        administrator.execute("ROLLBACK")
    await store.commit(EVERYTHING)
    assert stored(file).sessions == (SESSION,)
