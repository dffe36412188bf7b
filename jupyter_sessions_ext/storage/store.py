"""The store's contract. Every change is one transaction: all of it is durable, or none is."""

from __future__ import annotations

from typing import Any, Protocol

from ..models import Change, Event, Snapshot


class Store(Protocol):
    """The durable truth of one workspace.

    ``open`` and ``commit_now`` block and are for the start, before requests are served; all else
    is asynchronous and runs off the event loop. The caller commits one change at a time.
    """

    location: str
    """Where it is kept, as told to people."""

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

    async def events(self, session_id: str) -> list[Event]:
        """Return a session's history, the oldest first.

        :raises StoreUnavailableError: it cannot be read
        """

    def close(self) -> None:
        """Finish what is queued and let go of it. Safe to call twice, with or without a loop."""
