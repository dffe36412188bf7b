"""Export and import: nothing is lost, nothing comes in twice, and others go on meanwhile."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import time
import tracemalloc
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from administered import Administered, administered_server
from interpreters import run_python
from records import WHEN

from jupyter_sessions_ext.administration.transfer import Importer, Part, check, export, parts
from jupyter_sessions_ext.models import (
    Change,
    Event,
    EventAction,
    EventFilter,
    SessionRecord,
    SessionState,
    Snapshot,
)
from jupyter_sessions_ext.storage.sqlite import SQLiteStore
from jupyter_sessions_ext.wire import InvalidBodyError
from jupyter_sessions_ext.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from stores import MakesStores
    from typing_extensions import Self


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Administered]:
    yield from administered_server(tmp_path_factory)


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Administered]:
    yield from administered_server(tmp_path_factory)


def read(document: bytes) -> Part:
    """Return all of a document."""
    read = [*parts(document)]
    return Part(
        tuple(s for part in read for s in part.sessions),
        tuple(e for part in read for e in part.events),
    )


def lines(admin: Administered) -> list[dict[str, Any]]:
    reply = admin.ask("GET", "/export")
    assert reply.status_code == 200
    assert reply.headers["Content-Type"] == "application/x-ndjson"
    assert reply.headers["Content-Disposition"].startswith("attachment; filename=")
    return [json.loads(line) for line in reply.text.splitlines()]


def imported(admin: Administered, *document: Any) -> dict[str, Any]:
    reply = admin.ask("POST", "/import", content=ndjson(*document))
    assert reply.status_code == 200, reply.text
    answer: dict[str, Any] = reply.json()
    return answer


def ndjson(*document: Any) -> bytes:
    return "\n".join(json.dumps(line) for line in document).encode()


def history(admin: Administered, session_id: str) -> list[dict[str, Any]]:
    """Return a session's events, the oldest first, without their numbers."""
    events = admin.get("/events", session=session_id, limit=1000)["items"]
    return [{**event, "id": None} for event in reversed(events)]


def test_sessions_come_to_another_server_with_their_history(
    here: Administered, there: Administered
) -> None:
    live = here.live("work/ünï \U0001f40d.ipynb", name="n")
    dormant = here.dormant("b.ipynb")
    here.server.patch(f"/api/sessions/{live['id']}", {"path": "work/c.ipynb"})
    document = lines(here)
    before = {i: here.item(i) for i in (live["id"], dormant)}
    events = {i: history(here, i) for i in before}

    count = sum("event" in line for line in document)
    expected = {"sessions": 2, "events": count, "known_sessions": 0, "known_events": 0}
    assert imported(there, *document) == expected
    for session_id, item in before.items():
        came = there.item(session_id)
        for name in ("id", "path", "name", "type", "created_at", "created_by", "kernel_name"):
            assert came[name] == item[name]
        assert came["state"] == "dormant"
        assert came["reason"] == ("shut down" if session_id == dormant else "imported")
        *past, last = history(there, session_id)
        assert past == events[session_id]
        assert last["action"] == "imported"
    again = {"sessions": 0, "events": 0, "known_sessions": 2, "known_events": count}
    assert imported(there, *document) == again
    # They are there for good, and come back under their ids.
    there.server.restart()
    assert there.ids() == list(before)
    assert there.live("work/c.ipynb")["id"] == live["id"]
    assert imported(there, *document) == again
    assert there.item(live["id"])["state"] == "live"
    # What it says of itself is what comes back to where it came from.
    assert imported(here, *lines(there))["sessions"] == 0


HEADER = {"format": "jupyter_sessions_ext", "version": 1, "exported_at": "2026-01-01T00:00:00Z"}
SESSION = {
    "id": "s-0-0-0-0",
    "path": "a.ipynb",
    "name": None,
    "type": "notebook",
    "kernel_id": None,
    "kernel_name": "python3",
    "state": "live",
    "reason": "",
    "created_at": "2026-01-01T01:00:00+01:00",
    "created_by": "ada",
    "since": "2026-01-01T00:00:00Z",
}
EVENT = {
    "time": "2026-01-01T01:00:00+01:00",
    "action": "created",
    "session_id": "s-0-0-0-0",
    "kernel_id": None,
    "detail": "",
    "user": "ada",
}


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (b"", "line 1: "),
        (b"{}", "line 1: "),
        (b"\xff", "line 1: "),
        (ndjson({**HEADER, "version": 2}), "line 1: version: 2 is newer"),
        (ndjson({**HEADER, "format": "other"}), "line 1: format: "),
        (ndjson({"session": SESSION}), "line 1: "),
        (ndjson(HEADER, {"session": SESSION}, {"session": {}}), "line 3: "),
        (ndjson(HEADER, {"session": {**SESSION, "path": 5}}), "line 2: "),
        (ndjson(HEADER, {"session": {**SESSION, "path": "x" * 4097}}), "line 2: "),
        (ndjson(HEADER, {"session": {**SESSION, "path": "a\0"}}), "line 2: "),
        *(
            (ndjson(HEADER, {"session": {**SESSION, "id": odd}}), "line 2: session.id: must be a")
            for odd in ("", "foo", "a/b", " ", ".", "actions", "ж-1-2-3-4", "a-b-c-d-e\n")
        ),
        (ndjson(HEADER, {"session": {**SESSION, "id": "a\r\nSet-Cookie: x=1"}}), "line 2: "),
        (ndjson(HEADER, {"session": {**SESSION, "id": "a-b-c-d-" + 4096 * "x"}}), "line 2: "),
        (
            ndjson(HEADER, {"event": {**EVENT, "time": "9999-01-01T00:00:00Z"}}),
            "line 2: event.time: lies more than a day ahead",
        ),
        (
            ndjson(HEADER, {"session": {**SESSION, "created_at": "9999-01-01T00:00:00Z"}}),
            "line 2: session.created_at: lies more than a day ahead",
        ),
        (ndjson(HEADER, {"session": {**SESSION, "created_at": "2026-01-01"}}), "line 2: "),
        (ndjson(HEADER, {"session": {**SESSION, "state": "asleep"}}), "line 2: "),
        (ndjson(HEADER, {"event": {**EVENT, "action": "exploded"}}), "line 2: "),
        (ndjson(HEADER, {"event": {**EVENT, "time": "2026-01-01T00:00:00"}}), "line 2: "),
        (ndjson(HEADER) + b"\n" + b"[" * 100_000, "line 2: "),
        (ndjson(HEADER) + b'\n{"session":{"path":"\\ud800"}}', "line 2: "),
    ],
)
def test_a_document_that_makes_no_sense_changes_nothing(
    there: Administered, document: bytes, message: str
) -> None:
    before = lines(there)[1:]
    reply = there.ask("POST", "/import", content=document)
    assert reply.status_code == 400
    assert reply.json()["message"].startswith(message)
    assert lines(there)[1:] == before


def test_what_a_later_version_adds_is_passed_over() -> None:
    more = ndjson(HEADER, {"session": {**SESSION, "colour": "red"}}, {"event": EVENT})
    document = read(more + b"\n\n")
    assert [s.session_id for s in document.sessions] == ["s-0-0-0-0"]
    [event] = document.events
    assert event.time.isoformat() == "2026-01-01T00:00:00+00:00"


def test_an_id_that_comes_twice_comes_in_once() -> None:
    twice = ndjson(HEADER, {"session": SESSION}, {"session": {**SESSION, "path": "b"}})
    assert [s.path for s in read(twice).sessions] == ["a.ipynb"]


def test_a_time_that_no_clock_has_is_refused() -> None:
    for time_ in ("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"):
        for line in (
            {"event": {**EVENT, "time": time_}},
            {"session": {**SESSION, "created_at": time_}},
        ):
            with pytest.raises(InvalidBodyError, match="line 2"):
                read(ndjson(HEADER, line))


# -------------------------------------------------------------------------- many

MANY = 10_000
LATEST = 0.05
"""Seconds of CPU time until others have their turn, at most; a part takes some milliseconds."""


def many() -> Change:
    sessions = tuple(
        SessionRecord(
            session_id=f"session-0-0-0-{number}",
            path=f"work/{number}.ipynb",
            type="notebook",
            state=SessionState.DORMANT,
            created_at=WHEN,
            since=WHEN,
        )
        for number in range(MANY)
    )
    events = tuple(
        Event(
            action=EventAction.CREATED,
            session_id=s.session_id,
            detail="x" * 100,
            time=WHEN + timedelta(seconds=number),
        )
        for number, s in enumerate(sessions)
    )
    return Change(sessions=sessions, past=events)


class Ticker:
    """Measures how much the loop's thread did at most before another task had its turn.

    Without what a collection of all that the tests have made takes.
    """

    def __init__(self) -> None:
        self.worst = 0.0

    async def __aenter__(self) -> Self:
        gc.collect()
        gc.freeze()
        self._task = asyncio.create_task(self._tick())
        await asyncio.sleep(0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        gc.unfreeze()

    async def _tick(self) -> None:
        while True:
            before = time.thread_time()
            await asyncio.sleep(0.001)
            self.worst = max(self.worst, time.thread_time() - before)


@pytest.mark.asyncio
async def test_many_are_exported_and_imported_without_holding_up_others(
    make_store: MakesStores, tmp_path: Path
) -> None:
    change = many()
    store = make_store(tmp_path / "from.sqlite")
    store.commit_now(change)
    workspace = Workspace(logging.getLogger("test"), store=store)
    workspace.load(Snapshot(sessions=change.sessions))

    parts: list[int] = []
    document = tmp_path / "document"
    tracemalloc.start()
    async with Ticker() as ticker:
        with document.open("wb") as file:
            async for part in export(workspace.registry, store):
                parts.append(len(part))
                file.write(part)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert sum(parts) > 4e6
    assert max(parts) < sum(parts) / 20
    assert peak < sum(parts) / 2
    held_up = ticker.worst

    target = make_store(tmp_path / "to.sqlite")
    other = Workspace(logging.getLogger("test"), store=target)
    text = document.read_bytes()
    async with Ticker() as ticker:
        answer = await Importer(other).take(text)
    assert (answer.sessions, answer.events) == (MANY, MANY)
    assert len(other.registry.sessions) == MANY
    assert await target.count_events(EventFilter()) == 2 * MANY  # and that each was imported
    assert max(held_up, ticker.worst) < LATEST


@pytest.mark.asyncio
async def test_an_import_that_could_not_be_stored_goes_on_when_it_is_repeated(
    make_store: MakesStores, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = many()
    text = b"".join([part async for part in export(_registry(source), make_store())])
    target = make_store(tmp_path / "to.sqlite")
    workspace = Workspace(logging.getLogger("test"), store=target)
    commit = SQLiteStore.commit
    allowed = 5

    async def fails_later(store: SQLiteStore, change: Change) -> None:
        nonlocal allowed
        allowed -= 1
        if allowed < 0:
            raise OSError("injected")
        await commit(store, change)

    monkeypatch.setattr(SQLiteStore, "commit", fails_later)
    with pytest.raises(OSError, match="injected"):
        await Importer(workspace).take(text)
    monkeypatch.undo()
    there = len(workspace.registry.sessions)
    assert 0 < there < MANY
    answer = await Importer(workspace).take(text)
    assert (answer.sessions, answer.known_sessions) == (MANY - there, there)
    assert len(target.open().sessions) == MANY


def _registry(change: Change) -> Any:
    workspace = Workspace(logging.getLogger("test"))
    workspace.load(Snapshot(sessions=change.sessions))
    return workspace.registry


def test_a_session_that_comes_in_is_kept_as_long_as_one_that_has_just_lost_its_kernel(
    there: Administered,
) -> None:
    old = {**SESSION, "id": "old-0-0-0-0", "since": "2001-01-01T00:00:00Z", "state": "dormant"}
    imported(there, HEADER, {"session": old})
    assert there.item("old-0-0-0-0")["since"] > "2026"


# -------------------------------------------------------------------------- what is large, or odd

READS = """
import resource, sys
from jupyter_sessions_ext.administration import transfer
from jupyter_sessions_ext.cli.transfer import _split

HEADER = {header!r}
text = HEADER + b"\\n" + {filler!r} * ({size} // len({filler!r}))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
transfer.check(text)
for _ in _split(text):
    pass
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.parametrize("filler", [b"\n", b" ", b" \n", b"\r\n", b"{}"])
def test_a_large_document_takes_little_more_memory_than_its_text(filler: bytes) -> None:
    code = READS.format(header=ndjson(HEADER), filler=filler, size=64 << 20)
    done = run_python("-c", code, timeout=60)
    if filler == b"{}":
        assert "line 2" in done.stderr
    else:
        assert int(done.stdout) < 100_000, "kilobytes"


def test_many_events_take_no_more_memory_than_some_lines() -> None:
    line = ndjson({"event": EVENT})
    text = ndjson(HEADER) + b"\n" + (line + b"\n") * 50_000
    tracemalloc.start()
    check(text)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 4_000_000


def test_a_session_under_an_id_of_no_address_is_opened(here: Administered) -> None:
    """One came in by an import of an earlier version."""
    server = here.server
    for number, odd in enumerate(["ж", "a\r\nSet-Cookie: x=1", "\u202e", "a/b", " "]):
        server.kill()
        record = SessionRecord(
            session_id=odd, path=f"odd{number}.ipynb", type="notebook", state=SessionState.DORMANT
        )
        [folder] = (server.home.data_dir / "jupyter_sessions_ext").iterdir()
        SQLiteStore(str(folder / "sessions.sqlite")).commit_now(Change(sessions=(record,)))
        server.start()
        body = {"path": record.path, "type": "notebook"}
        reply = server.post("/api/sessions", body)
        assert (reply.status_code, reply.json().get("id")) == (201, odd), reply.text
        assert "x=1" not in reply.headers.get("Set-Cookie", "")
