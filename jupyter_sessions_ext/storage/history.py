"""The history as SQL: which events are meant, in which order, and from where on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from ..models import Event, EventAction, EventFilter

INSERT_EVENT = (
    "INSERT INTO event (time, session_id, kernel_id, action, detail, user) VALUES (?,?,?,?,?,?)"
)
SELECT_UNKNOWN = (
    "SELECT key FROM json_each(?) WHERE NOT EXISTS (SELECT 1 FROM event WHERE "
    + " AND ".join(
        f"{column} IS json_extract(json_each.value, '$[{i}]')"
        for i, column in enumerate(["time", "session_id", "kernel_id", "action", "detail", "user"])
    )
    + ")"
)
"""Which of a JSON list of rows are not there, by their place in it."""
_SELECT = "SELECT event_id, time, session_id, kernel_id, action, detail, user FROM event"


def select_events(
    wanted: EventFilter,
    *,
    after: Event | None = None,
    most: int | None = None,
    latest_first: bool = False,
) -> tuple[str, list[Any]]:
    """Return the statement that selects events, by time, and its parameters.

    :param after: begin behind this one
    """
    conditions, values = _conditions(wanted)
    if after is not None:
        conditions.append(f"(time, event_id) {'<' if latest_first else '>'} (?, ?)")
        values += [after.time.isoformat(), after.event_id]
    down = " DESC" if latest_first else ""
    sql = f"{_SELECT}{_where(conditions)} ORDER BY time{down}, event_id{down}"
    return (sql, values) if most is None else (f"{sql} LIMIT ?", [*values, most])


def count_events(wanted: EventFilter) -> tuple[str, list[Any]]:
    """Return the statement that counts events, and its parameters."""
    conditions, values = _conditions(wanted)
    return f"SELECT count(*) FROM event{_where(conditions)}", values


def event_row(event: Event) -> tuple[Any, ...]:
    """Return what is written of an event."""
    return (
        event.time.isoformat(),
        event.session_id,
        event.kernel_id,
        event.action.value,
        event.detail,
        event.user,
    )


def read_events(rows: Iterable[Mapping[str, Any]]) -> list[Event]:
    """Make events of rows."""
    return [
        Event(
            event_id=row["event_id"],
            time=datetime.fromisoformat(row["time"]),
            session_id=row["session_id"],
            kernel_id=row["kernel_id"],
            action=EventAction(row["action"]),
            detail=row["detail"],
            user=row["user"],
        )
        for row in rows
    ]


def _conditions(wanted: EventFilter) -> tuple[list[str], list[Any]]:
    candidates = {
        "session_id=?": wanted.session_id,
        "action=?": wanted.action.value if wanted.action else None,
        "user=?": wanted.user,
        "time>=?": wanted.since.isoformat() if wanted.since else None,
        "time<?": wanted.until.isoformat() if wanted.until else None,
    }
    chosen = {sql: value for sql, value in candidates.items() if value is not None}
    return [*chosen], [*chosen.values()]


def _where(conditions: list[str]) -> str:
    return f" WHERE {' AND '.join(conditions)}" if conditions else ""
