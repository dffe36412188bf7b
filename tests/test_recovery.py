"""What is recovered at the start is committed and shown, wherever kernels can be kept."""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest
from workspaces import KERNEL, OTHER, SESSION, Opens, add, messages, place_of, refuse

from jupyter_sessions_ext import host, workspace
from jupyter_sessions_ext.errors import AdoptionError, KernelGoneError
from jupyter_sessions_ext.host import identify, machine_id
from jupyter_sessions_ext.kernels.recovery import KERNEL_ENDED, recover
from jupyter_sessions_ext.models import Change, KernelPhase, KernelRecord, SessionState, Snapshot
from jupyter_sessions_ext.storage.sqlite import SQLiteStore

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
    still, asleep = opened.registry.sessions.values()
    assert still == mine
    assert asleep == replace(OTHER.asleep(KERNEL_ENDED), since=asleep.since)
    assert asleep.state is SessionState.DORMANT
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
