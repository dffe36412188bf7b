"""Commits: changes that wait share a transaction, and none of them can tell."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from workspaces import KERNEL, LOG, OTHER, SESSION, add

from jupyter_sessions_ext.commits import Commits
from jupyter_sessions_ext.errors import (
    IllegalTransitionError,
    StoreUnavailableError,
    ValueRefusedError,
)
from jupyter_sessions_ext.models import (
    SYSTEM,
    Change,
    Event,
    EventAction,
    EventFilter,
    HistoryLimits,
    KernelActivity,
    SessionRecord,
    merged,
)
from jupyter_sessions_ext.registry import Registry
from jupyter_sessions_ext.storage.sqlite import MEMORY, SQLiteStore

WHEN = datetime(2026, 1, 2, 3, tzinfo=timezone.utc)


class CountingStore(SQLiteStore):
    """Counts its transactions; the first of them can be held up, and each refused."""

    def __init__(self, location: str = MEMORY) -> None:
        super().__init__(location)
        self.transactions: list[Change] = []
        self.asked = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()
        self.refuses = False

    async def commit(self, change: Change) -> None:
        self.asked.set()
        await self.gate.wait()
        if self.refuses:
            raise StoreUnavailableError(self.location, "injected")
        if any("\ud800" in (s.path or "") for s in change.sessions):
            raise ValueRefusedError("a lone surrogate")
        await super().commit(change)
        self.transactions.append(change)


@pytest.fixture
def store() -> CountingStore:
    return CountingStore()


@pytest.fixture
def commits(store: CountingStore) -> Commits:
    return Commits(LOG, store)


async def behind_a_held_one(
    commits: Commits, store: CountingStore, *waiting: asyncio.Future[Change]
) -> list[Change | BaseException]:
    """Let what waits for a transaction that is held up have its turn; return what becomes of it."""
    await store.asked.wait()
    store.gate.set()
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    store.close()
    return outcomes


def asked(commits: Commits, *sessions: SessionRecord) -> asyncio.Future[Change]:
    return asyncio.ensure_future(commits.transact(add(*sessions)))


@pytest.mark.asyncio
async def test_changes_that_wait_share_a_transaction(
    commits: Commits, store: CountingStore
) -> None:
    store.gate.clear()
    sessions = [replace(SESSION, session_id=str(n)) for n in range(16)]
    await behind_a_held_one(commits, store, *(asked(commits, s) for s in sessions))
    assert [len(t.sessions) for t in store.transactions] == [16]
    assert list(commits.registry.sessions.values()) == sessions


@pytest.mark.asyncio
async def test_one_of_a_group_that_cannot_be_stored_spoils_no_other(
    commits: Commits, store: CountingStore
) -> None:
    store.gate.clear()
    bad = replace(SESSION, session_id="bad", path="\ud800")
    outcomes = await behind_a_held_one(
        commits, store, asked(commits, SESSION), asked(commits, bad), asked(commits, OTHER)
    )
    assert [type(outcome) for outcome in outcomes] == [Change, ValueRefusedError, Change]
    assert list(commits.registry.sessions.values()) == [SESSION, OTHER]


@pytest.mark.asyncio
async def test_a_group_that_is_refused_leaves_no_trace_in_what_follows(
    commits: Commits, store: CountingStore
) -> None:
    await commits.transact(add(SESSION))
    store.refuses = True
    outcomes = await asyncio.gather(
        asked(commits, replace(SESSION, name="lost")), asked(commits, OTHER), return_exceptions=True
    )
    assert {type(outcome) for outcome in outcomes} == {StoreUnavailableError}
    store.refuses = False
    seen: list[SessionRecord] = []

    def build(records: Registry) -> Change:
        seen.extend(records.sessions.values())
        return Change()

    await commits.transact(build)
    assert seen == list(commits.registry.sessions.values()) == [SESSION]
    store.close()


@pytest.mark.asyncio
async def test_what_is_not_committed_yet_is_not_shown(
    commits: Commits, store: CountingStore
) -> None:
    store.gate.clear()
    change = asked(commits, SESSION)
    await store.asked.wait()
    assert commits.registry.sessions == {}
    store.gate.set()
    await change
    assert commits.registry.sessions == {"s": SESSION}
    store.close()


@pytest.mark.asyncio
async def test_events_are_emitted_when_they_are_committed_and_name_who_did_it(
    commits: Commits, store: CountingStore
) -> None:
    emitted: list[Event] = []
    commits.emit = emitted.append
    renamed = Change(
        sessions=(SESSION,), events=(Event(action=EventAction.RENAMED, session_id="s"),)
    )
    await commits.transact(add(SESSION))
    store.refuses = True
    with pytest.raises(StoreUnavailableError):
        await commits.transact(lambda _: renamed, "ada")
    assert emitted == []
    store.refuses = False
    await commits.transact(lambda _: renamed, "ada")
    await commits.transact(lambda _: renamed)
    assert [e.user for e in emitted] == ["ada", SYSTEM]
    assert await store.events(EventFilter(session_id="s")) == emitted
    store.close()


@pytest.mark.asyncio
async def test_a_listener_that_fails_does_not_undo_a_change(
    commits: Commits, store: CountingStore, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(event: Event) -> None:
        raise RuntimeError("injected")

    commits.emit = fail
    events = (Event(action=EventAction.CREATED, session_id="s"),)
    await commits.transact(lambda _: Change(sessions=(SESSION,), events=events))
    assert commits.registry.sessions == {"s": SESSION}
    assert "could not be emitted" in caplog.text
    store.close()


@pytest.mark.asyncio
async def test_a_change_that_no_session_can_make_is_refused(
    commits: Commits, store: CountingStore
) -> None:
    await commits.transact(add(SESSION))
    expired = (Event(action=EventAction.EXPIRED, session_id="s"),)
    with pytest.raises(IllegalTransitionError, match="Session s cannot go from"):
        await commits.transact(lambda _: Change(forgotten_sessions=("s",), events=expired))
    assert commits.registry.sessions == {"s": SESSION}
    assert await store.events(EventFilter(session_id="s")) == []
    store.close()


# -------------------------------------------------------------------------- merging

IDS = st.sampled_from(["a", "b", "c"])
EVENTS = st.builds(
    Event,
    action=st.sampled_from(EventAction),
    session_id=IDS,
    kernel_id=st.none() | IDS,
    time=st.just(WHEN),
)
SESSIONS = st.builds(
    lambda session_id, name, kernel_id: replace(
        SESSION, session_id=session_id, name=name, kernel_id=kernel_id
    ),
    IDS,
    st.sampled_from(["x", "y", "z"]),
    IDS,
)
KERNELS = st.builds(
    lambda kernel_id, adoptions: replace(KERNEL, kernel_id=kernel_id, adoptions=adoptions),
    IDS,
    st.integers(0, 9),
)
ACTIVITY = st.builds(
    lambda kernel_id, minutes: KernelActivity(
        kernel_id=kernel_id,
        execution_state="idle",
        last_activity=WHEN + timedelta(minutes=minutes),
    ),
    IDS,
    st.integers(0, 9),
)


@st.composite
def changes(draw: st.DrawFn) -> Change:
    sessions = draw(st.lists(SESSIONS, max_size=2, unique_by=lambda s: s.session_id))
    kernels = draw(st.lists(KERNELS, max_size=2, unique_by=lambda k: k.kernel_id))
    pairs = st.permutations(["a", "b", "c"]).map(lambda p: (p[0], p[1]))
    absorbed = draw(st.lists(pairs, max_size=1))
    return Change(
        sessions=tuple(sessions),
        forgotten_sessions=tuple(
            i for i in draw(st.sets(IDS)) if i not in {s.session_id for s in sessions}
        ),
        kernels=tuple(kernels),
        forgotten_kernels=tuple(
            i for i in draw(st.sets(IDS)) if i not in {k.kernel_id for k in kernels}
        ),
        activity=tuple(
            a
            for a in draw(st.lists(ACTIVITY, max_size=1))
            if a.kernel_id in {k.kernel_id for k in kernels}
        ),
        absorbed=tuple(absorbed),
        events=tuple(draw(st.lists(EVENTS, max_size=2))),
    )


def outcome(made: Sequence[Change]) -> object:
    """Return what memory and a store hold after these changes."""

    async def run() -> object:
        registry = Registry()
        with closing(SQLiteStore()) as store:
            for change in made:
                await store.commit(change)
                registry.apply(change)
            connection = await store.connection()
            tables = [
                sorted(map(tuple, await connection.execute_fetchall(f"SELECT * FROM {table}")))
                for table in ("session", "session_detail", "kernel", "event")
            ]
        return registry.sessions, registry.kernels, tables

    return asyncio.run(run())


@settings(deadline=None)  # the machine may be busy
@given(st.lists(changes(), min_size=2, max_size=4))
def test_merged_changes_do_what_they_do_one_after_the_other(made: list[Change]) -> None:
    assert outcome([merged(made)]) == outcome(made)


@pytest.mark.asyncio
async def test_history_is_kept_for_so_long_and_so_many(tmp_path: Path) -> None:
    with closing(SQLiteStore()) as store:
        events = [
            Event(action=EventAction.RENAMED, session_id="s", time=WHEN + timedelta(days=day))
            for day in range(10)
        ]
        await store.commit(Change(events=tuple(events)))
        since = WHEN + timedelta(days=3)
        await store.commit(Change(history=HistoryLimits(since=since, most=None)))
        assert await store.events(EventFilter(session_id="s")) == events[3:]
        await store.commit(Change(history=HistoryLimits(since=None, most=2)))
        assert await store.events(EventFilter(session_id="s")) == events[-2:]
        await store.commit(Change(history=HistoryLimits(since=None, most=None)))
        assert await store.events(EventFilter(session_id="s")) == events[-2:]
