"""The history in a store: what is asked for, in order, page by page; and whether it can be kept."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from records import EVENT, EVERYTHING, WHEN
from stores import MakesStores, fetch

from jupyter_sessions_ext.errors import StoreGoneError, StoreUnavailableError
from jupyter_sessions_ext.models import Change, Event, EventAction, EventFilter
from jupyter_sessions_ext.storage.sqlite import SQLiteStore

# Of one time, and not in the order in which they happened: what came in from another store.
HISTORY = [
    Event(
        action=list(EventAction)[number % 3],
        session_id=f"s{number % 4}",
        user="ada" if number % 2 else "bob",
        time=WHEN + timedelta(microseconds=((number * 7) % 10) // 2),
        detail=str(number),
    )
    for number in range(20)
]
IN_ORDER = sorted(HISTORY, key=lambda event: event.time)

FILTERS = [
    EventFilter(),
    EventFilter(session_id="s1"),
    EventFilter(action=EventAction.RENAMED),
    EventFilter(user="ada"),
    EventFilter(since=WHEN + timedelta(microseconds=2)),
    EventFilter(until=WHEN + timedelta(microseconds=2)),
    EventFilter(session_id="s3", user="ada", since=WHEN + timedelta(microseconds=1)),
    EventFilter(user="nobody"),
]


def passes(event: Event, wanted: EventFilter) -> bool:
    return (
        wanted.session_id in (None, event.session_id)
        and wanted.action in (None, event.action)
        and wanted.user in (None, event.user)
        and (wanted.since is None or event.time >= wanted.since)
        and (wanted.until is None or event.time < wanted.until)
    )


@pytest.mark.parametrize("latest_first", [False, True])
@pytest.mark.parametrize("wanted", FILTERS, ids=str)
@pytest.mark.asyncio
async def test_pages_hold_all_that_is_asked_for_once_in_order(
    store: SQLiteStore, wanted: EventFilter, latest_first: bool
) -> None:
    await store.commit(Change(events=tuple(HISTORY)))
    expected = [event for event in IN_ORDER if passes(event, wanted)]
    if latest_first:
        expected.reverse()
    assert await store.count_events(wanted) == len(expected)
    found: list[Event] = []
    for _ in range(10):
        after = found[-1] if found else None
        found += await store.events(wanted, after=after, most=3, latest_first=latest_first)
    assert found == expected


@pytest.mark.asyncio
async def test_events_of_another_store_are_told_from_those_that_are_there(
    store: SQLiteStore,
) -> None:
    await store.commit(Change(events=(EVENT, *HISTORY[:5])))
    others = [replace(EVENT, kernel_id=None), replace(EVENT, session_id=None), *HISTORY[5:]]
    unknown = await store.unknown_events([others[0], EVENT, *others[1:], *HISTORY[:5]])
    assert unknown == others
    await store.commit(Change(past=tuple(unknown)))
    assert await store.unknown_events(unknown) == []


@pytest.mark.asyncio
async def test_a_check_changes_nothing(store: SQLiteStore, file: Path) -> None:
    await store.commit(EVERYTHING)
    before = await fetch(store, "SELECT * FROM schema_version")
    await store.check()
    assert await fetch(store, "SELECT * FROM schema_version") == before


@pytest.mark.asyncio
async def test_a_check_tells_of_a_file_that_is_gone(store: SQLiteStore, file: Path) -> None:
    await store.commit(EVERYTHING)
    os.unlink(file)
    with pytest.raises(StoreGoneError):
        await store.check()
    assert not os.path.exists(file)  # noqa: ASYNC240 - nothing else runs


@pytest.mark.asyncio
async def test_a_check_tells_of_what_cannot_be_written(
    store: SQLiteStore, make_store: MakesStores, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jupyter_sessions_ext.storage.sqlite.BUSY_TIMEOUT", 0.01)
    await store.commit(EVERYTHING)
    holder = await make_store(file).connection()
    await holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailableError, match="locked"):
        await store.check()
    await holder.execute("ROLLBACK")
    await store.check()


@pytest.mark.asyncio
async def test_a_store_in_memory_can_always_be_written(make_store: MakesStores) -> None:
    await make_store(":memory:").check()
