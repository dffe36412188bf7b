"""The store's contract. Every change is one transaction: all of it is durable, or none is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from ..models import Change, Event, EventFilter, Snapshot


class Store(Protocol):
    """The durable truth of one workspace.

    ``open`` and ``commit_now`` block and are for the start, before requests are served; all else
    is asynchronous and runs off the event loop. The caller commits one change at a time.
    """

    backend: str
    """What kind of database it is."""

    location: str
    """Where it is kept, as told to people."""

    journal_bytes: int
    """The size of its write-ahead log, as the latest commit found it; 0 where it has none."""

    def open(self) -> Snapshot:
        """Bring the schema up to date (after a backup) and return what is held.

        :raises SchemaTooNewError: a newer version wrote it; nothing was touched
        :raises StoreCorruptError: it is not a readable database
        :raises StoreUnavailableError: it cannot be opened
        """

    def commit_now(self, change: Change) -> None:
        """Make a change durable before the event loop runs.

        :raises StoreUnavailableError: nothing was changed
        """

    async def commit(self, change: Change) -> None:
        """Make a change durable.

        :raises StoreUnavailableError: nothing was changed
        :raises ValueRefusedError: it holds what cannot be stored; nothing was changed
        """

    async def connection(self) -> Any:
        """Return the driver's own connection, for statements that no verb here covers.

        :raises StoreUnavailableError: it cannot be opened
        """

    async def events(
        self,
        wanted: EventFilter,
        *,
        after: Event | None = None,
        most: int | None = None,
        latest_first: bool = False,
    ) -> list[Event]:
        """Return a part of the history, by time: the oldest first, or the latest.

        :param after: begin behind this one, of which the time and the number are looked at
        :param most: so many events at most
        :raises StoreUnavailableError: it cannot be read
        """

    async def count_events(self, wanted: EventFilter) -> int:
        """Count the events that are meant.

        :raises StoreUnavailableError: it cannot be read
        """

    async def unknown_events(self, events: Sequence[Event]) -> list[Event]:
        """Return those of the events, from another store, that are not in this one.

        :raises StoreUnavailableError: it cannot be read
        """

    async def check(self) -> None:
        """Find out whether a change could be made durable, without making one.

        :raises StoreUnavailableError: it could not
        """

    async def checkpoint(self) -> None:
        """Have what was deleted gone from what precedes the store on the disk, too, as a log.

        :raises StoreUnavailableError: it could not be done
        """

    def close(self) -> None:
        """Finish what is queued and let go of it. Safe to call twice, with or without a loop."""
