"""The workspace: a change is durable, then shown; whatever state is found, a server starts."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jupyter_sessions_ext import folder, host, workspace
from jupyter_sessions_ext.errors import AdoptionError, KernelGoneError, StoreUnavailableError
from jupyter_sessions_ext.folder import Place
from jupyter_sessions_ext.host import identify, machine_id
from jupyter_sessions_ext.kernels.recovery import KERNEL_ENDED, recover
from jupyter_sessions_ext.models import (
    Change,
    Event,
    KernelActivity,
    KernelPhase,
    KernelRecord,
    SessionRecord,
    SessionState,
    Snapshot,
    now,
)
from jupyter_sessions_ext.storage.migrations import LATEST
from jupyter_sessions_ext.storage.sqlite import MEMORY, SQLiteStore
from jupyter_sessions_ext.workspace import Workspace, new_kernel

LOG = logging.getLogger("workspace-under-test")

SESSION = SessionRecord(session_id="s", path="a.ipynb", type="notebook", kernel_id="k")
OTHER = replace(SESSION, session_id="t", path="b.ipynb")
KERNEL = new_kernel("k", "python3", "kernel-k.json")


class HeldStore:
    """A store in memory whose commits can be held up and refused."""

    location = "held"

    def __init__(self) -> None:
        self.inner = SQLiteStore(MEMORY)
        self.refuses = False
        self.committed: list[Change] = []
        self.before_commit: Callable[[], None] = lambda: None
        self.asked = asyncio.Event()
        self.open_gate = asyncio.Event()
        self.open_gate.set()

    def open(self) -> Snapshot:
        return self.inner.open()

    def commit_now(self, change: Change) -> None:
        if self.refuses:
            raise StoreUnavailableError(self.location, "injected")
        self.committed.append(change)

    async def commit(self, change: Change) -> None:
        self.before_commit()
        self.asked.set()
        await self.open_gate.wait()
        if self.refuses:
            raise StoreUnavailableError(self.location, "injected")
        await self.inner.commit(change)
        self.committed.append(change)

    async def connection(self) -> Any:
        return await self.inner.connection()

    async def events(self, session_id: str) -> list[Event]:
        return await self.inner.events(session_id)

    def close(self) -> None:
        self.inner.close()


@pytest.fixture
def store() -> Iterator[HeldStore]:
    store = HeldStore()
    yield store
    store.close()


@pytest.fixture
def held(store: HeldStore) -> Workspace:
    """Return a workspace on a store that the test controls."""
    return Workspace(LOG, store=store)


def add(*sessions: SessionRecord) -> Callable[[], Change]:
    return lambda: Change(sessions=sessions)


# -------------------------------------------------------------------------- changes


@pytest.mark.asyncio
async def test_a_change_is_committed_before_it_is_shown(held: Workspace, store: HeldStore) -> None:
    shown_at_commit: list[SessionRecord] = []
    store.before_commit = lambda: shown_at_commit.extend(held.registry.sessions.values())
    change = await held.transact(add(SESSION))
    assert shown_at_commit == []
    assert store.committed == [change] == [Change(sessions=(SESSION,))]
    assert held.registry.sessions == {"s": SESSION}


@pytest.mark.asyncio
async def test_a_change_is_not_shown_while_its_commit_lasts(
    held: Workspace, store: HeldStore
) -> None:
    store.open_gate.clear()
    commit = asyncio.ensure_future(held.transact(add(SESSION)))
    await store.asked.wait()
    assert held.registry.sessions == {}
    store.open_gate.set()
    await commit
    assert held.registry.sessions == {"s": SESSION}


@pytest.mark.asyncio
async def test_a_change_that_is_refused_is_not_shown(held: Workspace, store: HeldStore) -> None:
    await held.transact(lambda: Change(sessions=(SESSION,), kernels=(KERNEL,)))
    store.refuses = True
    for change in (
        Change(sessions=(OTHER,)),
        Change(forgotten_sessions=("s",), forgotten_kernels=("k",)),
        Change(sessions=(replace(SESSION, path="renamed"),)),
    ):
        with pytest.raises(StoreUnavailableError):
            await held.transact(lambda change=change: change)  # type: ignore[misc]
    assert held.registry.sessions == {"s": SESSION}
    assert held.registry.kernels == {"k": KERNEL}
    assert [s.session_id for s in held.registry.at_path("a.ipynb", SessionState.LIVE)] == ["s"]


@pytest.mark.asyncio
async def test_a_row_of_failures_is_logged_once(
    held: Workspace, store: HeldStore, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(times: int) -> None:
        store.refuses = True
        for _ in range(times):
            with pytest.raises(StoreUnavailableError):
                await held.transact(add(SESSION))
            held.note(add(SESSION))
        await held.settled()
        store.refuses = False

    await fail(3)
    assert [(r.levelname, "injected" in r.getMessage()) for r in caplog.records] == [
        ("ERROR", True)
    ]
    await held.transact(add(SESSION))
    await fail(2)
    assert len(caplog.records) == 2, "again after a success"


@pytest.mark.asyncio
async def test_a_change_is_built_on_what_those_before_it_have_made(
    held: Workspace, store: HeldStore
) -> None:
    store.open_gate.clear()

    def count() -> Change:
        return add(replace(SESSION, session_id=str(len(held.registry.sessions))))()

    commits = [asyncio.ensure_future(held.transact(count)) for _ in range(5)]
    await store.asked.wait()
    store.open_gate.set()
    await asyncio.gather(*commits)
    assert list(held.registry.sessions) == ["0", "1", "2", "3", "4"]


@pytest.mark.asyncio
async def test_a_change_that_follows_a_refused_one_works(held: Workspace, store: HeldStore) -> None:
    store.refuses = True
    with pytest.raises(StoreUnavailableError):
        await held.transact(add(SESSION))
    store.refuses = False
    await held.transact(add(OTHER))
    assert held.registry.sessions == {"t": OTHER}


@pytest.mark.asyncio
async def test_a_change_is_finished_although_its_caller_is_cancelled(
    held: Workspace, store: HeldStore
) -> None:
    store.open_gate.clear()
    caller = asyncio.ensure_future(held.transact(add(SESSION)))
    await store.asked.wait()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert store.committed == []
    store.open_gate.set()
    await held.settled()
    assert store.committed == [Change(sessions=(SESSION,))]
    assert held.registry.sessions == {"s": SESSION}


@pytest.mark.asyncio
async def test_a_caller_cancelled_while_it_waits_for_its_turn_gets_its_change(
    held: Workspace, store: HeldStore
) -> None:
    store.open_gate.clear()
    first = asyncio.ensure_future(held.transact(add(SESSION)))
    await store.asked.wait()
    waits = asyncio.Event()

    async def call() -> None:
        waits.set()
        await held.transact(add(OTHER))

    second = asyncio.ensure_future(call())
    await waits.wait()
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    store.open_gate.set()
    await first
    await held.settled()
    assert list(held.registry.sessions) == ["s", "t"]


@pytest.mark.asyncio
async def test_nothing_is_committed_for_no_change(held: Workspace, store: HeldStore) -> None:
    assert await held.transact(Change) == Change()
    assert store.committed == []


@pytest.mark.asyncio
async def test_an_error_of_a_change_reaches_its_caller_and_blocks_no_other(
    held: Workspace,
) -> None:
    def build() -> Change:
        raise LookupError("no such session")

    with pytest.raises(LookupError, match="no such session"):
        await held.transact(build)
    await held.transact(add(SESSION))
    assert held.registry.sessions == {"s": SESSION}


@pytest.mark.asyncio
async def test_what_was_noted_is_settled_committed_or_refused(
    held: Workspace, store: HeldStore
) -> None:
    held.note(add(SESSION))
    await held.settled()
    assert held.registry.sessions == {"s": SESSION}
    store.refuses = True
    held.note(add(OTHER))
    await held.settled()
    await held.settled()
    assert held.registry.sessions == {"s": SESSION}


def test_without_a_loop_nothing_is_noted() -> None:
    held = Workspace(LOG)
    held.note(add(SESSION))
    assert held.registry.sessions == {}


def test_what_cannot_be_kept_at_start_is_shown_all_the_same(
    held: Workspace, store: HeldStore, caplog: pytest.LogCaptureFixture
) -> None:
    store.refuses = True
    held.commit_now(Change(sessions=(SESSION,)))
    held.commit_now(Change(sessions=(OTHER,)))
    assert list(held.registry.sessions) == ["s", "t"]
    assert [r.levelname for r in caplog.records] == ["ERROR"]


# -------------------------------------------------------------------------- kernels


@pytest.mark.asyncio
async def test_sessions_of_a_kernel_that_is_gone_turn_dormant(held: Workspace) -> None:
    elsewhere = replace(SESSION, session_id="u", kernel_id="another")
    await held.transact(lambda: Change(sessions=(SESSION, OTHER, elsewhere), kernels=(KERNEL,)))
    held.kernel_gone("k", "culled")
    await held.settled()
    dormant = [replace(s, state=SessionState.DORMANT, reason="culled") for s in (SESSION, OTHER)]
    assert list(held.registry.sessions.values()) == [*dormant, elsewhere]
    assert held.registry.kernels == {}
    assert held.registry.live() == [elsewhere]
    for session in dormant:
        [event] = await held.store.events(session.session_id)
        assert (event.action, event.kernel_id, event.detail) == ("dormant", "k", "culled")


@pytest.mark.asyncio
async def test_a_session_that_is_being_deleted_does_not_turn_dormant(held: Workspace) -> None:
    await held.transact(lambda: Change(sessions=(SESSION, OTHER), kernels=(KERNEL,)))
    with held.deleting("s"):
        held.kernel_gone("k", "shut down")
        await held.settled()
    assert [s.session_id for s in held.registry.live()] == ["s"]


@pytest.mark.asyncio
async def test_an_unknown_kernel_that_is_gone_changes_nothing(
    held: Workspace, store: HeldStore
) -> None:
    held.kernel_gone("unknown", "died")
    await held.settled()
    assert store.committed == []


@pytest.mark.asyncio
async def test_a_kernel_that_runs_keeps_what_it_was_reserved_for(held: Workspace) -> None:
    await held.reserve(replace(KERNEL, intent=SESSION, adoptions=2))
    reserved = held.registry.kernels["k"]
    process = identify(os.getpid())
    await held.running(replace(KERNEL, phase=KernelPhase.RUNNING, process=process))
    assert held.registry.kernels["k"] == replace(
        reserved,
        phase=KernelPhase.RUNNING,
        process=process,
        last_activity=KERNEL.last_activity,
    )


@pytest.mark.asyncio
async def test_a_kernel_is_not_reserved_where_that_cannot_be_kept(
    held: Workspace, store: HeldStore
) -> None:
    store.refuses = True
    with pytest.raises(StoreUnavailableError):
        await held.reserve(KERNEL)
    assert held.registry.kernels == {}


@pytest.mark.asyncio
async def test_no_store_keeps_a_kernel_from_being_stopped(
    held: Workspace, store: HeldStore
) -> None:
    await held.reserve(KERNEL)
    store.refuses = True
    await held.stopping(["k", "unknown"])
    assert held.registry.kernels == {"k": KERNEL}
    store.refuses = False
    await held.stopping(["k", "unknown"])
    assert held.registry.kernels == {"k": replace(KERNEL, phase=KernelPhase.STOPPING)}


@pytest.mark.asyncio
async def test_activity_is_recorded_of_kernels_that_are_known(held: Workspace) -> None:
    await held.reserve(KERNEL)
    at = now()
    await held.active(
        lambda: [
            KernelActivity(kernel_id=i, execution_state="idle", last_activity=at)
            for i in ("k", "unknown")
        ]
    )
    assert held.registry.kernels == {"k": replace(KERNEL, execution_state="idle", last_activity=at)}


# -------------------------------------------------------------------------- the state folder


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
        return opened

    def place(self, number: int = 1) -> Place:
        return list(folder.places(self.state_dir, str(self.root_dir), None))[number - 1]


@pytest.fixture
def open_workspace(tmp_path: Path) -> Iterator[Opens]:
    opens = Opens(tmp_path / "state", tmp_path / "notebooks")
    yield opens
    for opened in opens.opened:
        opened.close()


def place_of(opened: Workspace) -> Place:
    assert opened.place is not None
    return opened.place


def digests(path: Path) -> dict[str, str]:
    return {
        str(file.relative_to(path)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in path.rglob("*")
        if file.is_file()
    }


def messages(caplog: pytest.LogCaptureFixture, level: int) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno == level]


def test_what_was_committed_is_there_for_the_next_server(open_workspace: Opens) -> None:
    first = open_workspace()
    assert first.keeps_kernels
    assert first.lost, "there was no file"
    first.commit_now(Change(sessions=(SESSION,), kernels=(KERNEL,)))
    place = place_of(first)
    first.close()
    first.close()
    assert (first.place, first.keeps_kernels) == (None, False)

    second = open_workspace()
    assert place_of(second) == place
    assert second.registry.sessions == {"s": SESSION}
    assert second.registry.kernels == {"k": KERNEL}
    assert not second.lost


def test_a_workspace_is_opened_once(open_workspace: Opens) -> None:
    opened = open_workspace()
    opened.open(str(open_workspace.root_dir))
    assert place_of(opened) == open_workspace.place()
    assert not open_workspace.place(2).folder.exists()


def test_an_explicit_memory_keeps_nothing(open_workspace: Opens) -> None:
    opened = open_workspace(MEMORY)
    assert (opened.place, opened.keeps_kernels) == (None, False)
    assert not open_workspace.state_dir.exists()


def test_an_explicit_database_keeps_sessions_and_kernels(
    open_workspace: Opens, tmp_path: Path
) -> None:
    file = tmp_path / "mine.db"
    opened = open_workspace(file)
    opened.commit_now(Change(sessions=(SESSION,), kernels=(KERNEL,)))
    assert opened.keeps_kernels
    assert SQLiteStore(str(file)).open() == Snapshot(sessions=(SESSION,), kernels=(KERNEL,))


@pytest.mark.asyncio
async def test_a_server_is_recorded_from_its_start_to_its_end(open_workspace: Opens) -> None:
    opened = open_workspace()
    question = "SELECT process, started_at <= stopped_at FROM server"

    def asked() -> list[Any]:
        with contextlib.closing(sqlite3.connect(place_of(opened).database)) as connection:
            return connection.execute(question).fetchall()

    recover(opened, None)
    [(process, stopped)] = asked()
    assert f'"pid": {os.getpid()}' in process
    assert stopped is None
    await opened.stopped()
    [(_, stopped)] = asked()
    assert stopped


def test_a_network_file_system_has_a_rollback_journal(
    open_workspace: Opens, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(workspace, "is_on_network", lambda path: True)
    opened = open_workspace()
    with contextlib.closing(sqlite3.connect(place_of(opened).database)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchall() == [("delete",)]
    [message] = messages(caplog, logging.WARNING)
    assert "network file system" in message


# -------------------------------------------------------------------------- several servers


@pytest.mark.asyncio
async def test_a_second_server_has_a_workspace_of_its_own_and_writes_only_there(
    open_workspace: Opens, caplog: pytest.LogCaptureFixture
) -> None:
    first = open_workspace()
    await first.transact(add(SESSION))
    before = digests(place_of(first).folder)
    second = open_workspace()
    assert place_of(second) == open_workspace.place(2)
    [message] = messages(caplog, logging.WARNING)
    assert place_of(first).key in message
    assert place_of(second).key in message
    assert second.registry.sessions == {}
    await second.transact(add(OTHER))
    await second.stopped()
    second.close()
    assert digests(place_of(first).folder) == before


def test_a_third_server_has_the_third_place_until_none_is_left(
    open_workspace: Opens, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(folder, "_MOST_SIBLINGS", 3)
    keys = [place_of(open_workspace()).key for _ in range(3)]
    assert keys == [open_workspace.place(n).key for n in (1, 2, 3)]
    fourth = open_workspace()
    assert fourth.place is None
    [message] = messages(caplog, logging.ERROR)
    assert "every workspace of this root folder is in use" in message


def test_a_server_has_the_first_place_again_once_that_is_free(open_workspace: Opens) -> None:
    first, second = open_workspace(), open_workspace()
    first.close()
    assert place_of(open_workspace()) == open_workspace.place()
    assert place_of(second) == open_workspace.place(2)


@pytest.fixture
def left_behind(open_workspace: Opens) -> Place:
    """Return the second of two workspaces that servers have left."""
    first, second = open_workspace(), open_workspace()
    first.commit_now(Change(sessions=(SESSION,), kernels=(KERNEL,)))
    second.commit_now(
        Change(
            sessions=(replace(OTHER, kernel_id="l"),),
            kernels=(replace(KERNEL, kernel_id="l"),),
            events=(Event(action="created", session_id="t", kernel_id="l"),),
        )
    )
    place = place_of(second)
    place.log_file("l").write_text("what kernel l has written")
    first.close()
    second.close()
    return place


@pytest.mark.asyncio
async def test_a_starting_server_takes_over_what_another_has_left(
    open_workspace: Opens, left_behind: Place
) -> None:
    opened = open_workspace()
    assert list(opened.registry.sessions) == ["s", "t"]
    assert list(opened.registry.kernels) == ["k", "l"]
    assert not left_behind.folder.exists()
    assert place_of(opened).log_file("l").read_text() == "what kernel l has written"
    stored = SQLiteStore(place_of(opened).database).open()
    assert stored.sessions == tuple(opened.registry.sessions.values())
    assert stored.kernels == tuple(opened.registry.kernels.values())


@pytest.mark.asyncio
async def test_the_history_of_what_is_taken_over_comes_along(
    open_workspace: Opens, left_behind: Place
) -> None:
    opened = open_workspace()
    assert [e.action for e in await opened.store.events("t")] == ["created"]


def test_what_another_server_uses_is_not_taken_over(
    open_workspace: Opens, left_behind: Place
) -> None:
    lease = folder.Lease.take(left_behind.folder)
    assert lease is not None
    before = digests(left_behind.folder)
    opened = open_workspace()
    assert list(opened.registry.sessions) == ["s"]
    assert digests(left_behind.folder) == before
    lease.release()


@pytest.mark.asyncio
async def test_a_take_over_that_was_interrupted_is_taken_up(
    open_workspace: Opens, left_behind: Place, tmp_path: Path
) -> None:
    """A server killed after the commit, before the sibling is removed: both hold the records."""
    shutil.copytree(left_behind.folder, tmp_path / "copy")
    first = open_workspace()
    renamed = replace(first.registry.sessions["t"], path="renamed")
    await first.transact(add(renamed))
    sessions, kernels = first.registry.sessions, first.registry.kernels
    first.close()
    shutil.copytree(tmp_path / "copy", left_behind.folder)

    second = open_workspace()
    assert second.registry.sessions == sessions
    assert second.registry.kernels == kernels
    assert not left_behind.folder.exists()


def refuse(file: str) -> None:
    """Have a database refuse new sessions."""
    with contextlib.closing(sqlite3.connect(file)) as connection, connection:
        connection.execute(
            "CREATE TRIGGER refuse BEFORE INSERT ON session "
            "BEGIN SELECT RAISE(ABORT, 'injected'); END"
        )


def test_what_cannot_be_taken_over_stays_where_it_is(
    open_workspace: Opens, left_behind: Place
) -> None:
    refuse(open_workspace.place().database)
    opened = open_workspace()
    assert list(opened.registry.sessions) == ["s"]
    assert [s.session_id for s in SQLiteStore(left_behind.database).open().sessions] == ["t"]
    assert left_behind.log_file("l").exists()


@pytest.mark.parametrize("found", ["newer", "garbage", "open to all"])
def test_a_sibling_that_must_not_be_used_is_left_as_it_is(
    open_workspace: Opens, left_behind: Place, found: str
) -> None:
    spoil(left_behind, found)
    before = Path(left_behind.database).read_bytes()
    opened = open_workspace()
    assert list(opened.registry.sessions) == ["s"]
    assert Path(left_behind.database).read_bytes() == before


# -------------------------------------------------------------------------- states not to be used


def spoil(place: Place, how: str) -> None:
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


@pytest.fixture
def kept(open_workspace: Opens) -> Place:
    """Return a place where an earlier server has kept a session and a kernel."""
    opened = open_workspace()
    opened.commit_now(Change(sessions=(SESSION,), kernels=(KERNEL,)))
    place = place_of(opened)
    opened.close()
    return place


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        ("newer", "schema version"),
        ("open to all", "others may write"),
        ("a link", "symbolic link"),
    ],
)
@pytest.mark.asyncio
async def test_a_state_that_must_not_be_used_is_left_and_the_server_works_without(
    open_workspace: Opens, kept: Place, caplog: pytest.LogCaptureFixture, found: str, reason: str
) -> None:
    spoil(kept, found)
    before = digests(open_workspace.state_dir)
    opened = open_workspace()
    assert (opened.place, opened.keeps_kernels) == (None, False)
    assert opened.registry.sessions == {}
    [message] = messages(caplog, logging.ERROR)
    assert "keeps nothing in this run" in message
    assert reason in message
    await opened.transact(add(OTHER))
    assert opened.registry.sessions == {"t": OTHER}
    opened.close()
    after = digests(open_workspace.state_dir)
    assert {k: after[k] for k in before} == before


@pytest.mark.asyncio
async def test_where_state_cannot_be_written_every_change_is_refused(
    open_workspace: Opens, kept: Place, caplog: pytest.LogCaptureFixture
) -> None:
    spoil(kept, "a folder")
    before = digests(open_workspace.state_dir)
    opened = open_workspace()
    assert (opened.place, opened.keeps_kernels) == (None, False)
    for _ in range(2):
        with pytest.raises(StoreUnavailableError, match=r"sessions\.sqlite.*restart the server"):
            await opened.transact(add(OTHER))
    assert opened.registry.sessions == {}
    assert len(messages(caplog, logging.ERROR)) == 1
    opened.close()
    after = digests(open_workspace.state_dir)
    assert {k: after[k] for k in before} == before


def test_a_state_that_must_not_be_used_is_not_held(open_workspace: Opens, kept: Place) -> None:
    spoil(kept, "newer")
    open_workspace()
    lease = folder.Lease.take(kept.folder)
    assert lease is not None
    lease.release()


@pytest.mark.parametrize("record", ["no JSON", '{"pid": 1}', "[1]"])
@pytest.mark.asyncio
async def test_a_record_that_cannot_be_read_keeps_no_server_from_starting(
    open_workspace: Opens, kept: Place, caplog: pytest.LogCaptureFixture, record: str
) -> None:
    spoil(kept, record)
    opened = open_workspace()
    await opened.transact(add(OTHER))
    assert "t" in opened.registry.sessions
    assert messages(caplog, logging.ERROR) != []


def test_a_state_folder_that_cannot_be_made_keeps_no_server_from_starting(
    open_workspace: Opens, caplog: pytest.LogCaptureFixture
) -> None:
    open_workspace.state_dir.touch()
    assert open_workspace().place is None
    [message] = messages(caplog, logging.ERROR)
    assert str(open_workspace.state_dir) in message


@pytest.mark.parametrize("garbage", [b"garbage" * 1000, b"SQLite format 3\0" + b"\xff" * 8000])
@pytest.mark.asyncio
async def test_a_file_of_ours_that_is_corrupt_is_moved_aside_and_begun_anew(
    open_workspace: Opens, kept: Place, caplog: pytest.LogCaptureFixture, garbage: bytes
) -> None:
    corrupt(kept, garbage)
    opened = open_workspace()
    assert place_of(opened) == kept
    assert opened.lost
    assert opened.keeps_kernels
    [message] = messages(caplog, logging.ERROR)
    [aside] = kept.folder.glob("sessions.sqlite.corrupt-*")
    assert str(aside) in message
    assert same(aside, garbage)
    await opened.transact(add(OTHER))
    assert SQLiteStore(kept.database).open().sessions == (OTHER,)


def corrupt(place: Place, garbage: bytes) -> None:
    Path(place.database).write_bytes(garbage)


def same(file: Path, content: bytes) -> bool:
    return file.read_bytes() == content


def test_an_explicit_file_that_is_no_database_is_left_alone(
    open_workspace: Opens, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "thesis.txt"
    file.write_text("not a database, and dear to its user")
    opened = open_workspace(file)
    assert opened.place is None
    assert file.read_text() == "not a database, and dear to its user"
    assert list(tmp_path.glob("thesis*")) == [file]
    [message] = messages(caplog, logging.ERROR)
    assert "not a SQLite database" in message


@pytest.mark.parametrize("left", [None, b""], ids=["deleted", "emptied"])
def test_a_file_that_was_lost_is_begun_anew_and_kernels_are_looked_for(
    open_workspace: Opens, kept: Place, left: bytes | None
) -> None:
    Path(kept.database).unlink()
    if left is not None:
        Path(kept.database).write_bytes(left)
    opened = open_workspace()
    assert place_of(opened) == kept
    assert opened.registry.sessions == {}
    assert opened.lost


@pytest.mark.asyncio
async def test_a_deleted_file_is_known_as_lost_to_the_next_server(
    open_workspace: Opens,
) -> None:
    """Whatever the server that lost it tried to write: the next one looks for the kernels."""
    first = open_workspace()
    discard_database(place_of(first))
    with pytest.raises(StoreUnavailableError):
        await first.transact(add(SESSION))
    await first.stopped()
    first.close()
    assert open_workspace().lost


def discard_database(place: Place) -> None:
    for suffix in ("", "-wal", "-shm"):
        Path(place.database + suffix).unlink(missing_ok=True)


@pytest.mark.asyncio
async def test_a_closed_workspace_refuses_changes(open_workspace: Opens) -> None:
    opened = open_workspace()
    await opened.transact(add(SESSION))
    opened.close()
    assert opened.closing
    with pytest.raises(StoreUnavailableError, match="closed"):
        await opened.transact(add(OTHER))


# -------------------------------------------------------------------------- other platforms


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take away what Windows has not."""
    monkeypatch.setattr(host, "POSIX", False)
    monkeypatch.setattr(workspace, "POSIX", False)
    for name in ("getsid", "geteuid", "getpgid", "killpg"):
        monkeypatch.delattr(os, name)


@pytest.mark.usefixtures("windows")
@pytest.mark.asyncio
async def test_where_kernels_cannot_outlive_the_server_sessions_do(
    open_workspace: Opens, caplog: pytest.LogCaptureFixture
) -> None:
    first = open_workspace()
    assert place_of(first) == open_workspace.place()
    assert not first.keeps_kernels
    [message] = messages(caplog, logging.WARNING)
    assert "Kernels cannot outlive the server on this platform" in message
    recover(first, None)
    await first.transact(add(SESSION))
    first.close()

    second = open_workspace()
    recover(second, None)
    assert second.registry.sessions["s"].state is SessionState.DORMANT


# -------------------------------------------------------------------------- recovery


@pytest.fixture
def running() -> Iterator[KernelRecord]:
    """Run a process in a kernel's stead; return its record."""
    with subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.read()"],
        stdin=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        yield replace(
            KERNEL, kernel_id="new", phase=KernelPhase.RUNNING, process=identify(process.pid)
        )
        process.kill()


def test_what_is_recovered_is_committed_and_shown(
    open_workspace: Opens, running: KernelRecord
) -> None:
    opened = open_workspace()
    mine = replace(SESSION, kernel_id="new")
    opened.commit_now(Change(sessions=(mine, OTHER), kernels=(running, KERNEL)))
    adopted: list[KernelRecord] = []
    recover(opened, adopted.append)
    assert opened.recovered
    assert adopted == [replace(running, adoptions=1)]
    asleep = replace(OTHER, state=SessionState.DORMANT, reason=KERNEL_ENDED)
    assert list(opened.registry.sessions.values()) == [mine, asleep]
    assert opened.registry.kernels == {"new": adopted[0]}
    stored = SQLiteStore(place_of(opened).database).open()
    assert stored == Snapshot(sessions=(mine, asleep), kernels=(adopted[0],))


@pytest.mark.parametrize(
    "error", [AdoptionError("new", "injected"), KernelGoneError("new", "injected"), KeyError("bug")]
)
def test_a_session_whose_new_kernel_is_not_adopted_is_not_left_with_its_old_one(
    open_workspace: Opens, running: KernelRecord, error: Exception
) -> None:
    """Its old kernel is gone, the one that it was to have cannot be taken."""
    opened = open_workspace()
    opened.commit_now(
        Change(sessions=(SESSION,), kernels=(KERNEL, replace(running, intent=SESSION)))
    )

    def adopt(_: KernelRecord) -> None:
        raise error

    recover(opened, adopt)
    assert "k" not in opened.registry.kernels
    assert opened.registry.sessions["s"].state is SessionState.DORMANT
    assert opened.registry.sessions["s"].reason == KERNEL_ENDED


def test_a_kernel_that_cannot_be_adopted_keeps_its_record_and_its_sessions(
    open_workspace: Opens, running: KernelRecord
) -> None:
    opened = open_workspace()
    mine = replace(SESSION, kernel_id="new")
    opened.commit_now(Change(sessions=(mine,), kernels=(running,)))

    def adopt(record: KernelRecord) -> None:
        raise AdoptionError(record.kernel_id, "injected")

    recover(opened, adopt)
    assert opened.registry.sessions == {"s": mine}
    assert opened.registry.kernels == {"new": running}


def test_a_kernel_of_another_host_is_left_alone(open_workspace: Opens) -> None:
    opened = open_workspace()
    theirs = replace(KERNEL, machine=f"not {machine_id()}")
    opened.commit_now(Change(sessions=(SESSION,), kernels=(theirs,)))
    adopted: list[KernelRecord] = []
    recover(opened, adopted.append)
    assert adopted == []
    held = opened.store.open()
    assert (held.sessions, held.kernels) == ((SESSION,), (theirs,))


def test_what_is_recovered_is_shown_also_where_it_cannot_be_kept(
    open_workspace: Opens, caplog: pytest.LogCaptureFixture
) -> None:
    """A server on a full disk still knows which kernels run."""
    opened = open_workspace()
    opened.commit_now(Change(sessions=(SESSION,), kernels=(KERNEL,)))
    refuse(place_of(opened).database)
    with contextlib.closing(sqlite3.connect(place_of(opened).database)) as connection, connection:
        connection.execute(
            "CREATE TRIGGER refuse_too BEFORE UPDATE ON session "
            "BEGIN SELECT RAISE(ABORT, 'injected'); END"
        )
    recover(opened, None)
    assert opened.registry.sessions["s"].state is SessionState.DORMANT
    [message] = messages(caplog, logging.ERROR)
    assert "injected" in message
