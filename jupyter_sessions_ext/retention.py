"""For how long what nobody uses is kept."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from datetime import timedelta

from .models import Change, Event, EventAction, HistoryLimits, now
from .registry import Registry


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """How much is kept; ``None``: all of it, for ever."""

    dormant: timedelta | None = timedelta(days=30)
    """Dormant sessions."""
    history: timedelta | None = timedelta(days=365)
    """Events."""
    events: int | None = 100_000
    """So many events at most."""

    def expired(self, records: Registry, *, but: Container[str] = ()) -> Change:
        """Return the change that drops what is not kept any longer.

        :param but: dormant sessions that stay, as they are just being given a kernel
        """
        present = now()
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
