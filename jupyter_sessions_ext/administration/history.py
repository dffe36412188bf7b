"""The history as a list, the latest event first."""

from __future__ import annotations

from datetime import datetime

import msgspec

from ..models import Event, EventAction, EventFilter
from ..storage.store import Store
from ..wire import InvalidBodyError, in_utc
from .cursors import read_cursor, write_cursor
from .schemas import EventItem, EventsPage, EventsQuery, Time

_SORT = "-time"


async def events_page(store: Store, query: EventsQuery) -> EventsPage:
    """Return a page of the history.

    :raises InvalidBodyError: a time is none, or the cursor is not one of this list
    :raises StoreUnavailableError: it cannot be read
    """
    wanted = EventFilter(
        session_id=query.session,
        action=query.action,
        user=query.user,
        since=read_time("since", query.since),
        until=read_time("until", query.until),
    )
    after = _read_place(query.cursor) if query.cursor is not None else None
    events = await store.events(wanted, after=after, most=query.limit + 1, latest_first=True)
    shown = events[: query.limit]
    return EventsPage(
        items=[
            EventItem(
                id=event.event_id,
                time=event.time,
                action=event.action,
                session_id=event.session_id,
                kernel_id=event.kernel_id,
                detail=event.detail,
                user=event.user,
            )
            for event in shown
        ],
        next=_write_place(shown[-1]) if len(events) > len(shown) else None,
        total=await store.count_events(wanted),
    )


def read_time(name: str, text: str | None) -> datetime | None:
    """Read a time; a mere number is none, though it might count seconds, or days.

    :param name: of what gives it
    :raises InvalidBodyError: it is none
    """
    if text is None:
        return None
    if "T" in text:  # in a query a plus sign stands for a space, and many do not escape it
        text = text.replace(" ", "+")
    try:
        return in_utc(name, msgspec.convert(text, Time))
    except msgspec.ValidationError as error:
        raise InvalidBodyError(
            f"{name}: {error}; a time is such as 2026-01-31T12:00:00Z"
        ) from error


def _write_place(event: Event) -> str:
    return write_cursor(_SORT, event.time.isoformat(), event.event_id)


def _read_place(cursor: str) -> Event:
    text, number = read_cursor(cursor, _SORT, tuple[str, int])
    try:
        time = datetime.fromisoformat(text)
        if time.tzinfo is None or abs(number) >= 1 << 63:
            raise ValueError
    except ValueError as error:
        raise InvalidBodyError("cursor: not one that this list has answered") from error
    return Event(action=EventAction.CREATED, time=time, event_id=number)
