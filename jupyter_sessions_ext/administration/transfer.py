"""Sessions and their history as NDJSON, to be kept elsewhere or taken to another server.

A JSON object on each line: first a header, then the sessions, then the events. Of kernels there
is nothing but the id and the name: no key and no environment leaves the store.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import islice
from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta, Struct

from .. import metrics
from ..commits import Commits
from ..models import (
    Change,
    Event,
    EventAction,
    EventFilter,
    SessionRecord,
    SessionState,
    now,
)
from ..registry import Registry
from ..storage.store import Store
from ..wire import (
    InvalidBodyError,
    KernelId,
    KernelName,
    Name,
    Path,
    SessionId,
    Type,
    check_path,
    explained,
    in_utc,
)
from .schemas import Imported, Text

FORMAT = "jupyter_sessions_ext"

VERSION = 1
"""Of the document's form: it grows when a reader of the one before would not understand it."""

MOST_IMPORTED_BYTES = 64 << 20
"""The largest document that is taken over REST."""

MOST_AHEAD = timedelta(days=1)
"""How far ahead of this host's clock another one's may be."""

AT_ONCE = 500
"""Lines that are written, or committed, at once."""

Time = Annotated[datetime, Meta(tz=True)]
T = TypeVar("T")

_NOT_BLANK = re.compile(rb"[^ \t\r\n]")
_LOOKED_AT = 1 << 20
"""Bytes in which a line's begin is looked for at once."""


class Header(Struct, kw_only=True):
    """The first line."""

    format: str
    version: Annotated[int, Meta(ge=1)]
    exported_at: Time


class ExportedSession(Struct, kw_only=True):
    """What is told of a session."""

    id: SessionId
    path: Path | None
    name: Name | None
    type: Type | None
    kernel_id: KernelId | None
    kernel_name: KernelName | None
    state: SessionState
    reason: Text
    created_at: Time
    created_by: Text
    since: Time

    @classmethod
    def of(cls, session: SessionRecord) -> ExportedSession:
        """Tell of a session."""
        return cls(
            id=session.session_id,
            path=session.path,
            name=session.name,
            type=session.type,
            kernel_id=session.kernel_id,
            kernel_name=session.kernel_name,
            state=session.state,
            reason=session.reason,
            created_at=session.created_at,
            created_by=session.created_by,
            since=session.since,
        )

    def record(self) -> SessionRecord:
        """Return the session as it comes in: dormant, as its kernel is not here.

        :raises InvalidBodyError: it is none that could have been made here
        """
        if self.path is not None:
            check_path(self.path)
        return SessionRecord(
            session_id=self.id,
            path=self.path,
            name=self.name,
            type=self.type,
            kernel_id=self.kernel_id,
            kernel_name=self.kernel_name,
            state=SessionState.DORMANT,
            reason=self.reason or "imported",
            created_at=_past("session.created_at", self.created_at),
            created_by=self.created_by,
        )


class ExportedEvent(Struct, kw_only=True):
    """What is told of an event."""

    time: Time
    action: EventAction
    session_id: Text | None
    kernel_id: Text | None
    detail: Text
    user: Text

    @classmethod
    def of(cls, event: Event) -> ExportedEvent:
        """Tell of an event."""
        return cls(
            time=event.time,
            action=event.action,
            session_id=event.session_id,
            kernel_id=event.kernel_id,
            detail=event.detail,
            user=event.user,
        )

    def event(self) -> Event:
        """Return the event, in this process's form of it.

        :raises InvalidBodyError: there is no such time in UTC
        """
        return Event(
            time=_past("event.time", self.time),
            action=self.action,
            session_id=self.session_id,
            kernel_id=self.kernel_id,
            detail=self.detail,
            user=self.user,
        )


def _past(field: str, time: datetime) -> datetime:
    """Return a time, which other hosts' clocks may have had as a little later than it is.

    :raises InvalidBodyError: it lies ahead, or there is no such time in UTC
    """
    moment = in_utc(field, time)
    if moment > now() + MOST_AHEAD:
        raise InvalidBodyError(f"{field}: lies more than a day ahead")
    return moment


class Line(Struct, omit_defaults=True, kw_only=True):
    """A line behind the header: one of these."""

    session: ExportedSession | None = None
    event: ExportedEvent | None = None


# ---------------------------------------------------------------------- export


async def export(registry: Registry, store: Store) -> AsyncIterator[bytes]:
    """Yield a document in parts, of sessions as they are now and of the history until now.

    :raises StoreUnavailableError: the history cannot be read
    """
    until = now()
    encoder = msgspec.json.Encoder()
    header = Header(format=FORMAT, version=VERSION, exported_at=until)
    yield encoder.encode_lines([header])
    for sessions in _in_parts([*registry.sessions.values()]):
        yield encoder.encode_lines([Line(session=ExportedSession.of(s)) for s in sessions])
        await asyncio.sleep(0)  # others have their turn
    last: Event | None = None
    while events := await store.events(EventFilter(until=until), after=last, most=AT_ONCE):
        yield encoder.encode_lines([Line(event=ExportedEvent.of(event)) for event in events])
        last = events[-1]


# ---------------------------------------------------------------------- import


@dataclass(frozen=True, slots=True)
class Part:
    """Some lines of a document that make sense."""

    sessions: tuple[SessionRecord, ...]
    events: tuple[Event, ...]


def check(text: bytes) -> None:
    """Look a document through, before anything of it is taken over.

    :raises InvalidBodyError: a line makes no sense, and which; or it is of a newer version
    """
    for _ in parts(text):
        pass


def parts(text: bytes) -> Iterator[Part]:
    """Yield a document some lines at a time: only these take memory beside its text.

    :raises InvalidBodyError: a line makes no sense, and which; or it is of a newer version
    """
    numbered = lines(text)
    _check_header(*next(numbered, (1, b"")))
    decoder = msgspec.json.Decoder(Line)
    while some := [*islice(numbered, AT_ONCE)]:
        sessions: dict[str, SessionRecord] = {}
        events: list[Event] = []
        for number, line in some:
            with _named(number):
                told = decoder.decode(line)
                if told.session is None and told.event is None:
                    raise InvalidBodyError("neither a session nor an event")
                if told.session is not None:
                    sessions.setdefault(told.session.id, told.session.record())
                if told.event is not None:
                    events.append(told.event.event())
        yield Part(tuple(sessions.values()), tuple(events))


def lines(text: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the lines of a document that are not blank, and the number of each, from 1."""
    number, counted, start = 1, 0, 0
    while start < len(text):
        found = _NOT_BLANK.search(text, start, start + _LOOKED_AT)
        if found is None:
            start += _LOOKED_AT  # other threads have their turn
            continue
        begin = found.start()
        number += text.count(b"\n", counted, begin)
        counted = begin
        end = text.find(b"\n", begin)
        start = len(text) if end < 0 else end
        yield number, text[begin:start]


def _check_header(number: int, line: bytes) -> None:
    with _named(number):
        header = msgspec.json.decode(line, type=Header)
        if header.format != FORMAT:
            raise InvalidBodyError(f"format: not {FORMAT}")
        if header.version > VERSION:
            raise InvalidBodyError(
                f"version: {header.version} is newer than {VERSION}, the newest that is known "
                "here: upgrade jupyter_sessions_ext"
            )


@contextmanager
def _named(number: int) -> Iterator[None]:
    """Say of what is wrong in which line it is."""
    try:
        yield
    except InvalidBodyError as error:
        raise InvalidBodyError(f"line {number}: {error}") from error
    except msgspec.ValidationError as error:
        raise InvalidBodyError(f"line {number}: {explained(error)}") from error
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise InvalidBodyError(f"line {number}: {error}") from error


class Importer:
    """Takes documents over, one after the other."""

    def __init__(self, commits: Commits) -> None:
        self._commits = commits
        self._turn = asyncio.Lock()

    @metrics.counted("import")
    async def take(self, text: bytes) -> Imported:
        """Take over what is not there yet: dormant sessions, and the history.

        It is done in transactions of some hundred lines, so that it can be repeated when the store
        fails in the midst of it.

        :raises InvalidBodyError: the document makes no sense; nothing was changed
        :raises StoreUnavailableError: it cannot be stored, or not all of it
        """
        await asyncio.to_thread(check, text)
        done = Imported(sessions=0, events=0, known_sessions=0, known_events=0)
        async with self._turn:
            left = parts(text)
            while (part := await asyncio.to_thread(next, left, None)) is not None:
                sessions = await self._take_sessions(part.sessions) if part.sessions else 0
                events = await self._take_events(part.events) if part.events else 0
                done.sessions += sessions
                done.known_sessions += len(part.sessions) - sessions
                done.events += events
                done.known_events += len(part.events) - events
        return done

    async def _take_sessions(self, sessions: Sequence[SessionRecord]) -> int:
        def build(records: Registry) -> Change:
            since = now()
            new = [s for s in sessions if s.session_id not in records.sessions]
            return Change(
                sessions=tuple(replace(s, since=since) for s in new),
                events=tuple(
                    Event(action=EventAction.IMPORTED, session_id=s.session_id) for s in new
                ),
            )

        return len((await self._commits.transact(build)).sessions)

    async def _take_events(self, events: Sequence[Event]) -> int:
        unknown = await self._commits.store.unknown_events(events)
        if unknown:
            await self._commits.transact(lambda _: Change(past=tuple(unknown)))
        return len(unknown)


def _in_parts(items: Sequence[T]) -> Iterator[Sequence[T]]:
    return (items[i : i + AT_ONCE] for i in range(0, len(items), AT_ONCE))
