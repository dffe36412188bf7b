"""Sessions and their history as NDJSON, to be kept elsewhere or taken to another server.

A JSON object on each line: first a header, then the sessions, then the events. Of kernels there
is nothing but the id and the name: no key and no environment leaves the store.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
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

AT_ONCE = 500
"""Lines that are written, or committed, at once."""

Time = Annotated[datetime, Meta(tz=True)]
T = TypeVar("T")

_OF_NO_URL = frozenset({".", "..", "actions"})
"""Ids of which ``sessions/{id}`` is another address."""


class Header(Struct, kw_only=True):
    """The first line."""

    format: str
    version: Annotated[int, Meta(ge=1)]
    exported_at: Time


class ExportedSession(Struct, kw_only=True):
    """What is told of a session."""

    id: Annotated[Text, Meta(min_length=1)]
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
        if self.id in _OF_NO_URL:
            raise InvalidBodyError(f"session.id: must not be {self.id!r}")
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
            created_at=in_utc("session.created_at", self.created_at),
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
            time=in_utc("event.time", self.time),
            action=self.action,
            session_id=self.session_id,
            kernel_id=self.kernel_id,
            detail=self.detail,
            user=self.user,
        )


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
class Document:
    """A document that makes sense."""

    sessions: tuple[SessionRecord, ...]
    events: tuple[Event, ...]


def read(text: bytes) -> Document:
    """Read a document as a whole, before anything of it is taken over.

    :raises InvalidBodyError: a line makes no sense, and which; or it is of a newer version
    """
    lines = text.split(b"\n")
    with _named(1):
        header = msgspec.json.decode(lines[0], type=Header)
        if header.format != FORMAT:
            raise InvalidBodyError(f"format: not {FORMAT}")
        if header.version > VERSION:
            raise InvalidBodyError(
                f"version: {header.version} is newer than {VERSION}, the newest that is known "
                "here: upgrade jupyter_sessions_ext"
            )
    sessions: dict[str, SessionRecord] = {}
    events: list[Event] = []
    decoder = msgspec.json.Decoder(Line)
    for number, line in enumerate(lines[1:], 2):
        if line.strip():
            with _named(number):
                told = decoder.decode(line)
                if told.session is None and told.event is None:
                    raise InvalidBodyError("neither a session nor an event")
                if told.session is not None:
                    sessions.setdefault(told.session.id, told.session.record())
                if told.event is not None:
                    events.append(told.event.event())
    return Document(tuple(sessions.values()), tuple(events))


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
        document = await asyncio.to_thread(read, text)
        async with self._turn:
            sessions = 0
            for part in _in_parts(document.sessions):
                sessions += await self._take_sessions(part)
            events = 0
            for past in _in_parts(document.events):
                events += await self._take_events(past)
        return Imported(
            sessions=sessions,
            events=events,
            known_sessions=len(document.sessions) - sessions,
            known_events=len(document.events) - events,
        )

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
