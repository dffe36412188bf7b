"""Where sessions are read from: the servers that run, and what is kept of those that do not."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from ..administration.schemas import Filter
from ..errors import SessionsError
from ..models import EventFilter
from . import servers
from .items import Item, find, kernel_matches, of_kernel
from .kept import Kept, look, places_in
from .outcome import NO_SERVER, CommandError, note
from .servers import Server, ServerError


@dataclass(frozen=True, slots=True)
class Where:
    """What a command is to look at; nothing: all that this user has."""

    state_dir: Path
    is_given: bool = False
    """Whether the state folder was named."""
    root_dir: str | None = None
    server: str | None = None
    token: str | None = None


class Running:
    """The sessions of one server, as it tells them."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.url = server.url
        self.root_dir = server.root_dir
        self.folder = server.folder

    @property
    def use(self) -> str:
        """Who uses it, for people."""
        return f"in use by a server, {self.url}"

    def items(self, wanted: Filter | None = None) -> list[Item]:
        """Return its sessions, and its kernels without one.

        :raises ServerError: it does not answer
        """
        wanted = wanted or Filter()
        asked = {k: v for k, v in msgspec.to_builtins(wanted).items() if v is not None}
        found = [self.item(item) for item in self.server.pages("/sessions", asked)]
        alone = (of_kernel(k) for k in self.server.pages("/kernels", {}) if not k["sessions"])
        return [*found, *(self.item(item) for item in alone if kernel_matches(item, wanted))]

    def item(self, item: Item) -> Item:
        """Return what the server tells of a session as ``--json`` prints it."""
        return {**item, "root_dir": self.root_dir, "server": self.url}

    def events(self, wanted: EventFilter, most: int | None) -> list[Item]:
        """Return a part of the history, the latest first.

        :raises ServerError: it does not answer
        """
        asked: dict[str, Any] = {
            "session": wanted.session_id,
            "action": wanted.action.value if wanted.action else None,
            "since": wanted.since.isoformat() if wanted.since else None,
        }
        asked = {k: v for k, v in asked.items() if v is not None}
        return [*self.server.pages("/events", asked, most)]


Source = Running | Kept


@contextlib.contextmanager
def opened(where: Where, problems: list[str]) -> Iterator[list[Source]]:
    """Find what a command is to look at: each workspace once, its server's where one runs.

    :param problems: gets what cannot be looked at
    :raises CommandError: ``--server`` is not one
    """
    token = where.token
    asked = [servers.named(where.server, token)] if where.server else servers.running(token)
    try:
        failures = dict(zip(asked, servers.probe(asked), strict=True))
        if where.server:
            [failure] = failures.values()
            if failure is not None:
                raise failure
            yield [Running(asked[0])]
        else:
            yield [s for s in _found(where, failures, problems) if _is_meant(s, where)]
    finally:
        for server in asked:
            server.close()


def _is_meant(source: Source, where: Where) -> bool:
    if where.root_dir is not None:
        return os.path.realpath(source.root_dir) == os.path.realpath(where.root_dir)
    if where.is_given and isinstance(source, Running):
        return _folder_of(source.folder or "") == os.path.realpath(where.state_dir)
    return True


def _folder_of(path: str) -> str:
    return os.path.dirname(os.path.realpath(path))


def _found(
    where: Where, failures: dict[Server, ServerError | None], problems: list[str]
) -> Iterator[Source]:
    answering = [server for server, failure in failures.items() if failure is None]
    by_key = {server.key: server for server in answering}
    by_pid = {server.pid: failure for server, failure in failures.items() if failure is not None}
    for place in places_in(where.state_dir, problems):
        server = by_key.get(place.key)
        if server is not None:
            answering.remove(server)
            yield Running(server)
            continue
        try:
            kept = look(place)
        except (SessionsError, OSError) as error:
            problems.append(str(error))
            continue
        if kept.problem is not None:
            problems.append(str(kept.problem))
        failure = by_pid.pop(kept.holder.pid if kept.holder else 0, None)
        if failure is not None:
            note(f"{failure}; what is recorded of {place.root_dir} is read instead")
        yield kept
    yield from map(Running, answering)
    if not where.is_given:  # else it is not known whether they have to do with it
        problems += [str(f) for f in by_pid.values() if f.status != 404 and f.code != NO_SERVER]


def resolved(
    references: Sequence[str], sources: Sequence[Source], problems: list[str]
) -> list[tuple[Source, Item]]:
    """Return what is meant by ids and paths, each once; what is not known goes to ``problems``."""
    of_item: dict[int, Source] = {}
    items: list[Item] = []
    for source in sources:
        for item in read(source, problems):
            of_item[id(item)] = source
            items.append(item)
    found = [_find(reference, items, problems) for reference in references]
    meant = {id(item): item for item in found if item is not None}
    return [(of_item[key], item) for key, item in meant.items()]


def _find(reference: str, items: Sequence[Item], problems: list[str]) -> Item | None:
    try:
        return find(reference, items)
    except CommandError as error:
        problems.append(str(error))
        return None


def read(source: Source, problems: list[str], wanted: Filter | None = None) -> list[Item]:
    """Return a source's items; why it cannot be read goes to ``problems``."""
    try:
        return source.items(wanted)
    except (CommandError, SessionsError) as error:
        problems.append(str(error))
        return []


def one(sources: Sequence[Source]) -> Source:
    """Return the only source.

    :raises CommandError: there are more, or none
    """
    if len(sources) == 1:
        return sources[0]
    if not sources:
        raise CommandError("nothing is kept, and no server runs: name a root folder (--root-dir)")
    roots = ", ".join(sorted({source.root_dir for source in sources}))
    if len({source.root_dir for source in sources}) == 1:
        raise CommandError(
            f"several servers have run on {roots} at once: when they have ended, start one, which "
            "takes over what all have left"
        )
    raise CommandError(f"there are several root folders: name one with --root-dir: {roots}", 2)
