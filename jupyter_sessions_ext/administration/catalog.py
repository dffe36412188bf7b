"""The sessions as a list to be filtered, sorted and paged through, as fast as memory allows.

What does not change is kept between requests: a row for each session, and the rows in order.
"""

from __future__ import annotations

import fnmatch
import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter
from typing import Any, NamedTuple

from ..kernels.usage import Usage
from ..models import SessionRecord, SessionState, now
from ..registry import Registry
from .cursors import read_cursor, write_cursor
from .schemas import Filter, SessionsQuery

MOST_FOUND = 32
"""Filters of which it is kept what they let through."""

Values = Mapping[str, float]
"""What is sorted by, by kernel id."""


class Row:
    """A session, and what is looked at in filtering and sorting."""

    __slots__ = ("by_created_at", "by_path", "has_kernel", "id", "kernel_id", "path", "session",
                 "since", "text")  # fmt: skip

    def __init__(self, session: SessionRecord) -> None:
        self.session = session
        self.id = session.session_id
        self.path = session.path or ""
        self.kernel_id = session.kernel_id or ""
        self.has_kernel = session.state is SessionState.LIVE
        """Whether it has one if the kernel runs."""
        self.since = session.since.timestamp()
        self.by_path = (self.path, self.id)
        self.by_created_at = (session.created_at.timestamp(), self.id)
        texts = (
            session.session_id,
            session.path,
            session.name,
            session.type,
            session.kernel_id,
            session.kernel_name,
            session.reason,
            session.created_by,
        )
        # A character that no text has keeps a search from running over the end of one.
        self.text = "\0".join(filter(None, texts)).casefold()


class Kernels:
    """The kernels at the moment at which a page is asked for.

    :param running: the ids of those that run
    :param activity: says when each was last active, in seconds since the epoch, by kernel id
    :param usage: what each uses, by kernel id, as far as it is known
    """

    def __init__(
        self,
        running: Collection[str],
        activity: Callable[[], Values],
        usage: Mapping[str, Usage],
    ) -> None:
        self.running = running
        self.usage = usage
        self._activity = activity

    @cached_property
    def activity(self) -> Values:
        """When each was last active."""
        return self._activity()

    def values(self, sort: str) -> Values | None:
        """Return what is sorted by, of each kernel; ``None`` where that is the session's own."""
        if sort == "cpu":
            return {kernel_id: usage.cpu_percent for kernel_id, usage in self.usage.items()}
        if sort == "memory":
            return {kernel_id: usage.memory_bytes for kernel_id, usage in self.usage.items()}
        return self.activity if sort == "last_activity" else None


@dataclass(frozen=True, slots=True)
class Page:
    """A part of the sessions that a filter lets through."""

    sessions: Sequence[SessionRecord]
    next: str | None
    """The cursor of the page behind it."""
    total: int
    """How many there are on all pages."""


class _Found(NamedTuple):
    """What a filter was applied to, and what it let through."""

    of: list[Row]
    running: tuple[str, ...]
    rows: list[Row]


class Catalog:
    """Rows of a registry's sessions."""

    def __init__(self) -> None:
        self._of: tuple[Registry, int] | None = None
        self._rows: dict[str, Row] = {}
        self._orders: dict[str, tuple[object, list[Row]]] = {}
        """By sort: what the order is of, and the rows in it, upwards."""
        self._found: dict[object, _Found] = {}
        """By filter, the last used at the end."""

    def page(self, registry: Registry, query: SessionsQuery, kernels: Kernels) -> Page:
        """Return the page of a list.

        :raises InvalidBodyError: the cursor is not one of this list
        """
        self._update(registry)
        is_down = query.sort.startswith("-")
        sort = query.sort.lstrip("-")
        key = _key(sort, kernels)
        rows = self._chosen(query, sort, kernels)
        if query.cursor is None:
            start = len(rows) if is_down else 0
        else:
            place = read_cursor(
                query.cursor, query.sort, tuple[str, str] if sort == "path" else tuple[float, str]
            )
            start = (bisect_left if is_down else bisect_right)(rows, place, key=key)
        if is_down:
            first = max(start - query.limit, 0)
            chosen = rows[first:start][::-1]
            is_last = first == 0
        else:
            chosen = rows[start : start + query.limit]
            is_last = start + query.limit >= len(rows)
        following = None if is_last else write_cursor(query.sort, *key(chosen[-1]))
        return Page([row.session for row in chosen], following, len(rows))

    def matching(self, registry: Registry, wanted: Filter, kernels: Kernels) -> list[SessionRecord]:
        """Return the sessions that a filter lets through, in the order of their creation."""
        self._update(registry)
        return [
            row.session
            for row in _idle(_filtered([*self._rows.values()], wanted, kernels), wanted, kernels)
        ]

    def _update(self, registry: Registry) -> None:
        if self._of == (registry, registry.version):
            return
        rows = self._rows
        self._rows = {
            session_id: row
            if (row := rows.get(session_id)) is not None and row.session is session
            else Row(session)
            for session_id, session in registry.sessions.items()
        }
        self._of = (registry, registry.version)

    def _chosen(self, query: SessionsQuery, sort: str, kernels: Kernels) -> list[Row]:
        """Return the rows that a filter lets through, in order, upwards."""
        rows = self._ordered(sort, kernels)
        wanted = _but_idle(query)
        running = tuple(kernels.running) if query.state is not None else ()
        known = self._found.pop(wanted, None)
        if known is not None and known.of is rows and known.running == running:
            found = known.rows
        else:
            found = _filtered(rows, query, kernels)
        self._found[wanted] = _Found(rows, running, found)
        while len(self._found) > MOST_FOUND:
            del self._found[next(iter(self._found))]
        return _idle(found, query, kernels)

    def _ordered(self, sort: str, kernels: Kernels) -> list[Row]:
        """Return all rows, upwards, as the same list for as long as nothing of it changes."""
        values = kernels.values(sort)
        made_of = (self._of, values)
        known = self._orders.get(sort)
        if known is not None and known[0] == made_of:
            return known[1]
        if values is None:  # Python's sort is quick where most is in order already
            present = self._rows
            rows = [row for row in known[1] if present.get(row.id) is row] if known else []
            if len(rows) < len(present):
                there = set(map(id, rows))
                rows += [row for row in present.values() if id(row) not in there]
            rows.sort(key=_key(sort, kernels))
        else:
            value = _value(sort, values)
            rows = sorted(self._ordered("id", kernels), key=value)
        self._orders[sort] = (made_of, rows)
        return rows


def _value(sort: str, values: Values) -> Callable[[Row], float]:
    """Return what a row is sorted by that its kernel has."""
    if sort == "last_activity":
        return lambda row: values.get(row.kernel_id, row.since) if row.has_kernel else row.since
    return lambda row: values.get(row.kernel_id, -1.0) if row.has_kernel else -1.0


def _key(sort: str, kernels: Kernels) -> Callable[[Row], Any]:
    """Return what a row is sorted by: with its id, so that no two are equal."""
    if sort == "path":
        return attrgetter("by_path")
    if sort == "created_at":
        return attrgetter("by_created_at")
    values = kernels.values(sort)
    if values is None:
        return attrgetter("id")
    value = _value(sort, values)
    return lambda row: (value(row), row.id)


def matcher(pattern: str) -> Callable[[str], re.Match[str] | None]:
    """Return what tells whether a path has a pattern of ``*``, ``?`` and ``[...]``."""
    # Where a bracket has no end, no later one has; fnmatch would look for each through the rest.
    begin = pattern.find("[")
    while begin >= 0:
        first = begin + 2 if pattern[begin + 1 : begin + 2] == "!" else begin + 1
        end = pattern.find("]", first + 1)  # the first character may be one
        if end < 0:
            pattern = pattern[:begin] + pattern[begin:].replace("[", "[[]")
            break
        begin = pattern.find("[", end + 1)
    return re.compile(fnmatch.translate(pattern)).match


def _filtered(rows: list[Row], wanted: Filter, kernels: Kernels) -> list[Row]:
    """Return the rows that a filter lets through, but for idleness, in their order."""
    running = kernels.running
    if wanted.state is SessionState.LIVE:
        rows = [row for row in rows if row.has_kernel and row.kernel_id in running]
    elif wanted.state is SessionState.DORMANT:
        rows = [row for row in rows if not (row.has_kernel and row.kernel_id in running)]
    if wanted.type is not None:
        rows = [row for row in rows if row.session.type == wanted.type]
    if wanted.kernel_name is not None:
        rows = [row for row in rows if row.session.kernel_name == wanted.kernel_name]
    if wanted.q:
        text = wanted.q.casefold()
        rows = [row for row in rows if text in row.text]
    if wanted.path is not None:
        if "[" not in wanted.path:  # whatever matches has all of its longest part: looked at first
            part = max(re.split("[*?]", wanted.path), key=len)
            rows = [row for row in rows if part in row.path]
        matches = matcher(wanted.path)
        rows = [row for row in rows if matches(row.path)]
    return rows


def _idle(rows: list[Row], wanted: Filter, kernels: Kernels) -> list[Row]:
    """Return the rows that have been idle for as long as is wanted; it changes with time."""
    if wanted.idle_longer_than is None:
        return rows
    latest = now().timestamp() - wanted.idle_longer_than
    since = _value("last_activity", kernels.activity)
    return [row for row in rows if since(row) <= latest]


def _but_idle(query: SessionsQuery) -> object:
    """Return all of a query that says what is let through, and in which order."""
    sort = query.sort.lstrip("-")
    return sort, query.state, query.type, query.kernel_name, query.path, query.q
