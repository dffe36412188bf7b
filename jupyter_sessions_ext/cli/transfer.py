"""``export`` and ``import``: through a server, or from and into what is kept without one."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import msgspec

from ..administration import transfer
from ..administration.schemas import Imported
from ..commits import Commits
from ..errors import SessionsError
from ..folder import Place, places
from ..models import Change, Event, EventFilter
from ..registry import Registry
from ..wire import InvalidBodyError
from ..workspace import store_of
from .files import STANDARD, written
from .kept import held
from .outcome import CommandError, note, tell
from .sources import Running, Source, Where, one, opened
from .tables import Progress, print_json, progress

if TYPE_CHECKING:
    from ..storage.store import Store

_AT_ONCE = 8 << 20
"""Bytes that are taken over in one request."""

# ---------------------------------------------------------------------- export


def export(options: argparse.Namespace, where: Where) -> int:
    """Write all sessions of one root folder, and their history."""
    problems: list[str] = []
    sessions = events = 0
    with opened(where, problems) as sources:
        source = one(sources)
        with written(options.output) as out, progress("exporting", None) as shown:
            for part in _parts(source):
                out.write(part)
                lines = part.count(b"\n")
                sessions += part.count(b'\n{"session":') + part.startswith(b'{"session":')
                shown.advance(lines)
                events += lines
    events -= sessions + 1  # the header
    told = {"root_dir": source.root_dir, "sessions": sessions, "events": events}
    if options.json and options.output != STANDARD:
        print_json({**told, "file": options.output})
    else:
        note(f"exported {sessions} session(s) and {events} event(s) of {source.root_dir}")
    return tell(problems)


def _parts(source: Source) -> Iterator[bytes]:
    """Yield an export, some whole lines at a time.

    :raises CommandError: it cannot be read
    """
    if isinstance(source, Running):
        yield from source.server.lines("/export")
        return
    registry = Registry()
    registry.apply(Change(sessions=source.snapshot.sessions))
    try:
        history = _History(source.history(EventFilter())[::-1])
    except SessionsError as error:
        raise CommandError(str(error)) from error
    yield from _each(transfer.export(registry, cast("Store", history)))


class _History:
    """The history of a store that is only read."""

    def __init__(self, events: Sequence[Event]) -> None:
        self._events = events
        self._next = 0

    async def events(
        self, wanted: EventFilter, *, after: Event | None = None, most: int
    ) -> Sequence[Event]:
        """Return the events that come next."""
        first, self._next = self._next, self._next + most
        return self._events[first : self._next]


def _each(parts: AsyncIterator[bytes]) -> Iterator[bytes]:
    """Yield what is made in a loop."""

    async def following() -> bytes | None:
        return await anext(parts, None)

    with contextlib.closing(asyncio.new_event_loop()) as loop:
        while (part := loop.run_until_complete(following())) is not None:
            yield part


# ---------------------------------------------------------------------- import


def import_file(options: argparse.Namespace, where: Where) -> int:
    """Take over the sessions and the history of an export."""
    text = _read(options.file)
    try:
        transfer.check(text)
    except InvalidBodyError as error:
        raise CommandError(f"{options.file} is no export that is understood: {error}") from error
    problems: list[str] = []
    parts = [*_split(text)]
    with opened(where, problems) as sources, progress("importing", len(parts)) as shown:
        if not sources and where.root_dir is not None:
            root_dir, done = where.root_dir, _import_new(where, where.root_dir, parts, shown)
        else:
            source = one(sources)
            root_dir = source.root_dir
            if isinstance(source, Running):
                done = _import_running(source, parts, shown)
            else:
                done = _import_kept(source.place, parts, shown)
    if options.json:
        print_json({"root_dir": root_dir, **msgspec.to_builtins(done)})
    else:
        print(
            f"{root_dir}: imported {done.sessions} session(s), {done.known_sessions} were there; "
            f"{done.events} event(s), {done.known_events} were there."
        )
    return tell(problems)


def _read(name: str) -> bytes:
    try:
        return sys.stdin.buffer.read() if name == STANDARD else Path(name).read_bytes()
    except OSError as error:
        raise CommandError(f"{name} cannot be read: {error}") from error


def _split(text: bytes) -> Iterator[bytes]:
    """Yield a document as several that are not too large."""
    (_, header), *_ = islice(transfer.lines(text), 1)
    part, size = [header], 0
    for _, line in islice(transfer.lines(text), 1, None):
        if size + len(line) > _AT_ONCE and size:
            yield b"\n".join(part)
            part, size = [header], 0
        part.append(line)
        size += len(line)
    yield b"\n".join(part)


def _import_running(source: Running, parts: Sequence[bytes], shown: Progress) -> Imported:
    def take(part: bytes) -> Imported:
        reply = source.server.request("POST", "/import", content=part)
        return msgspec.json.decode(reply.content, type=Imported)

    return _sum(parts, take, shown)


def _import_new(where: Where, root_dir: str, parts: Sequence[bytes], shown: Progress) -> Imported:
    """Take sessions over for a root folder that no server has had yet."""
    if not os.path.isdir(root_dir):
        raise CommandError(f"--root-dir: {root_dir} is no folder")
    place = next(places(where.state_dir, os.path.abspath(root_dir), None))
    return _import_kept(place, parts, shown, is_new=True)


def _import_kept(
    place: Place, parts: Sequence[bytes], shown: Progress, *, is_new: bool = False
) -> Imported:
    log = logging.getLogger("jupyter_sessions_ext.cli")
    log.addHandler(logging.NullHandler())
    log.propagate = False  # what cannot be done is raised, too
    try:
        with (
            held(place, "import", is_new=is_new) as found,
            contextlib.closing(store_of(place)) as store,
        ):
            if found.problem is not None:
                raise CommandError(str(found.problem))
            commits = Commits(log, store)
            commits.load(store.open())
            with contextlib.closing(asyncio.new_event_loop()) as loop:
                importer = transfer.Importer(commits)
                return _sum(parts, lambda p: loop.run_until_complete(importer.take(p)), shown)
    except (SessionsError, OSError) as error:
        raise CommandError(str(error)) from error


def _sum(parts: Sequence[bytes], take: Callable[[bytes], Imported], shown: Progress) -> Imported:
    total = Imported(sessions=0, events=0, known_sessions=0, known_events=0)
    for part in parts:
        done = take(part)
        for field in total.__struct_fields__:
            value: Any = getattr(total, field) + getattr(done, field)
            setattr(total, field, value)
        shown.advance()
    return total
