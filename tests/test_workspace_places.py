"""Where a server's workspace is: its own, a sibling's beside others, what those have left."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from stores import digests
from workspaces import KERNEL, OTHER, SESSION, Opens, add, messages, place_of, refuse, spoil

from jupyter_sessions_ext import folder, workspace
from jupyter_sessions_ext.folder import Place
from jupyter_sessions_ext.kernels.recovery import recover
from jupyter_sessions_ext.lease import Lease
from jupyter_sessions_ext.models import Change, Event, EventAction, EventFilter, Snapshot
from jupyter_sessions_ext.storage.sqlite import MEMORY, SQLiteStore

# -------------------------------------------------------------------------- the state folder


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
            events=(Event(action=EventAction.CREATED, session_id="t", kernel_id="l"),),
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
    assert [e.action for e in await opened.store.events(EventFilter(session_id="t"))] == ["created"]


def test_what_another_server_uses_is_not_taken_over(
    open_workspace: Opens, left_behind: Place
) -> None:
    lease = Lease.take(left_behind.folder)
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
