"""A store ends, whenever it is asked to, and leaves no thread."""

from __future__ import annotations

import asyncio
import textwrap
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from interpreters import run_python
from records import EVERYTHING, LATER, SESSION
from stores import stored

from jupyter_sessions_ext.errors import StoreUnavailableError
from jupyter_sessions_ext.models import Change, EventFilter
from jupyter_sessions_ext.storage.sqlite import MEMORY, SQLiteStore


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
@pytest.mark.parametrize("goes_on", [True, False], ids=["the loop goes on", "the loop ends"])
def test_a_store_that_is_closed_while_it_opens_leaves_no_thread(
    file: Path, loop: asyncio.AbstractEventLoop, goes_on: bool
) -> None:
    store = SQLiteStore(str(file))
    store.open()

    async def close_meanwhile() -> asyncio.Future[Any]:
        opening = asyncio.ensure_future(store.connection())
        closed = loop.create_future()

        def close() -> None:
            store.close()
            closed.set_result(None)

        loop.call_soon(close)  # after the first step of what opens it
        await closed
        return opening

    opening = loop.run_until_complete(close_meanwhile())
    if goes_on:
        with pytest.raises(StoreUnavailableError):
            loop.run_until_complete(opening)
    else:
        opening.cancel()
        loop.close()


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
        await any_store.events(EventFilter(session_id="s"))
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
    database = MEMORY if location == "memory" else file
    ended = run_python("-c", textwrap.dedent(script), database)
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
