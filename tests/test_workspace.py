"""The workspace: a change is durable, then shown; a refused one is not."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any
from unittest.mock import ANY

import pytest
from workspaces import KERNEL, LOG, OTHER, SESSION, add

from jupyter_sessions_ext.errors import StoreUnavailableError
from jupyter_sessions_ext.host import identify
from jupyter_sessions_ext.models import (
    Change,
    Event,
    EventFilter,
    KernelActivity,
    KernelPhase,
    SessionRecord,
    SessionState,
    Snapshot,
    now,
)
from jupyter_sessions_ext.registry import Registry
from jupyter_sessions_ext.storage.sqlite import MEMORY, SQLiteStore
from jupyter_sessions_ext.workspace import Workspace


class HeldStore:
    """A store in memory whose commits can be held up and refused."""

    location = "held"

    def __init__(self) -> None:
        self.inner = SQLiteStore(MEMORY)
        self.backend = self.inner.backend
        self.refuses = False
        self.journal_bytes = 0
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

    async def events(self, wanted: EventFilter, **page: Any) -> list[Event]:
        return await self.inner.events(wanted, **page)

    async def count_events(self, wanted: EventFilter) -> int:
        return await self.inner.count_events(wanted)

    async def unknown_events(self, events: Sequence[Event]) -> list[Event]:
        return await self.inner.unknown_events(events)

    async def check(self) -> None:
        await self.inner.check()

    async def checkpoint(self) -> None:
        await self.inner.checkpoint()

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
    await held.transact(lambda _: Change(sessions=(SESSION,), kernels=(KERNEL,)))
    store.refuses = True
    for change in (
        Change(sessions=(OTHER,)),
        Change(forgotten_sessions=("s",), forgotten_kernels=("k",)),
        Change(sessions=(replace(SESSION, path="renamed"),)),
    ):
        with pytest.raises(StoreUnavailableError):
            await held.transact(lambda _, change=change: change)  # type: ignore[misc]
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

    def count(records: Registry) -> Change:
        return Change(sessions=(replace(SESSION, session_id=str(len(records.sessions))),))

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
    assert await held.transact(lambda _: Change()) == Change()
    assert store.committed == []


@pytest.mark.asyncio
async def test_an_error_of_a_change_reaches_its_caller_and_blocks_no_other(
    held: Workspace,
) -> None:
    def build(_: Registry) -> Change:
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
    await held.transact(lambda _: Change(sessions=(SESSION, OTHER, elsewhere), kernels=(KERNEL,)))
    held.kernel_gone("k", "culled")
    await held.settled()
    *dormant, last = held.registry.sessions.values()
    assert last == elsewhere
    assert dormant == [replace(s.asleep("culled"), since=ANY) for s in (SESSION, OTHER)]
    assert all(s.state is SessionState.DORMANT and s.since > SESSION.since for s in dormant)
    assert held.registry.kernels == {}
    assert held.registry.live() == [elsewhere]
    for session in dormant:
        [event] = await held.store.events(EventFilter(session_id=session.session_id))
        assert (event.action, event.kernel_id, event.detail) == ("dormant", "k", "culled")


@pytest.mark.asyncio
async def test_a_session_that_is_being_deleted_does_not_turn_dormant(held: Workspace) -> None:
    await held.transact(lambda _: Change(sessions=(SESSION, OTHER), kernels=(KERNEL,)))
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
