"""Expiry of dormant sessions and of the history."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from datetime import datetime, timedelta

from .models import Change, Event, EventAction, HistoryLimits, now
from .registry import Registry

GAP = timedelta(days=1)
"""A longer time without any server does not count."""


class ServedTime:
    """A clock of the time in which servers ran.

    It goes on by less than a day over an absence of the server, however long, and over a step of
    the system's clock: neither lets everything expire at once.

    :param last_seen: the latest time that is recorded
    """

    def __init__(self, last_seen: datetime | None) -> None:
        self._seen = last_seen or now()
        self._skipped = timedelta()

    def tell(self) -> datetime:
        """Return the time; to be asked at least once a day."""
        present = now()
        gap = present - self._seen
        if abs(gap) > GAP:
            self._skipped = max(self._skipped + gap, timedelta())
        self._seen = present
        return present - self._skipped


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """How much is kept; ``None``: all of it, for ever."""

    dormant: timedelta | None = timedelta(days=30)
    """Dormant sessions."""
    history: timedelta | None = timedelta(days=365)
    """Events."""
    events: int | None = 100_000
    """So many events at most."""

    def expired(self, records: Registry, present: datetime, *, but: Container[str] = ()) -> Change:
        """Return the change that drops what is not kept any longer.

        :param present: the time by which it is told, see :class:`ServedTime`
        :param but: dormant sessions that stay, as they are just being given a kernel
        """
        gone = [
            session
            for session in records.dormant()
            if self.dormant is not None
            and session.since < present - self.dormant
            and session.session_id not in but
        ]
        since = present - self.history if self.history is not None else None
        return Change(
            forgotten_sessions=tuple(s.session_id for s in gone),
            events=tuple(
                Event(action=EventAction.EXPIRED, session_id=s.session_id, detail=f"path {s.path}")
                for s in gone
            ),
            history=HistoryLimits(since=since, most=self.events),
        )
