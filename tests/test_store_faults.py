"""Broken files, killed processes and full disks: what was committed stays, the rest is refused."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from disks import fill, small_disk
from records import EVENT, EVERYTHING, KERNEL, LATER, SESSION
from stores import MakesStores, digests, fetch, modes, run, stored

from jupyter_sessions_ext.errors import StoreCorruptError, StoreUnavailableError
from jupyter_sessions_ext.models import Change, EventFilter, Snapshot
from jupyter_sessions_ext.storage.sqlite import SQLiteStore

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
        connection.execute("UPDATE schema_version SET version = version + 1000")
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
    assert await store.events(EventFilter(session_id="s")) == [EVENT]
    await run(store, "PRAGMA max_page_count=1000000")
    await store.commit(large)
    assert stored(file).sessions == (SESSION, *large.sessions)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """Return a folder on a file system of half a megabyte."""
    folder = tmp_path / "small"
    folder.mkdir()
    with small_disk(folder):
        yield folder


@pytest.mark.asyncio
async def test_a_full_disk_refuses_commits_and_goes_on_reading(
    small: Path, make_store: MakesStores
) -> None:
    file = small / "sessions.sqlite"
    store = make_store(file)
    await store.commit(EVERYTHING)
    filler = fill(small)
    for _ in range(2):
        with pytest.raises(StoreUnavailableError, match="full"):
            await store.commit(replace(LATER, events=(replace(EVENT, detail="x" * 10_000),)))
    assert await store.events(EventFilter(session_id="s")) == [EVENT]
    filler.unlink()
    await store.commit(LATER)
    assert stored(file).sessions == (SESSION, *LATER.sessions)


@pytest.mark.asyncio
async def test_what_a_full_disk_holds_can_be_opened(small: Path, make_store: MakesStores) -> None:
    file = small / "sessions.sqlite"
    make_store(file).commit_now(EVERYTHING)
    filler = fill(small)
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


def workers() -> list[threading.Thread]:
    """Return the threads that databases may work in: all but this one and the pools'."""
    return [
        thread
        for thread in threading.enumerate()
        if thread is not threading.main_thread() and "worker" in thread.name
    ]
