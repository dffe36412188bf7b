"""The schema, as the ordered list of migrations that make it.

A database that is migrated and one that is written fresh go through the same statements. Table
``session`` keeps exactly the five columns of jupyter_server's own, in its order, so that a
server without this extension can use an explicit ``database_filepath`` afterwards; what we add is
in ``session_detail``.
"""

from __future__ import annotations

from typing import NamedTuple


class Migration(NamedTuple):
    """One step: applied whole, in one transaction, and recorded under its version."""

    version: int
    name: str
    sqlite: tuple[str, ...]


MIGRATIONS: tuple[Migration, ...] = (
    Migration(
        1,
        "sessions, kernels, history, servers",
        (
            "CREATE TABLE session (session_id TEXT PRIMARY KEY, path, name, type, kernel_id)",
            """CREATE TABLE session_detail (
                session_id TEXT PRIMARY KEY, state TEXT NOT NULL, reason TEXT NOT NULL,
                kernel_name TEXT, created_at TEXT NOT NULL)""",
            """CREATE TABLE kernel (
                kernel_id TEXT PRIMARY KEY, kernel_name TEXT NOT NULL, phase TEXT NOT NULL,
                machine TEXT NOT NULL, connection_file TEXT NOT NULL, connection TEXT NOT NULL,
                launch TEXT NOT NULL, provisioner TEXT NOT NULL, process TEXT, intent TEXT,
                execution_state TEXT NOT NULL, last_activity TEXT NOT NULL,
                started_at TEXT NOT NULL, adoptions INTEGER NOT NULL)""",
            """CREATE TABLE event (
                event_id INTEGER PRIMARY KEY AUTOINCREMENT, time TEXT NOT NULL, session_id TEXT,
                kernel_id TEXT, action TEXT NOT NULL, detail TEXT NOT NULL, user TEXT NOT NULL)""",
            "CREATE INDEX event_of_session ON event (session_id)",
            """CREATE TABLE server (
                server_id TEXT PRIMARY KEY, process TEXT NOT NULL, hostname TEXT NOT NULL,
                started_at TEXT NOT NULL, stopped_at TEXT)""",
        ),
    ),
    Migration(
        2,
        "since when a session is in its state",
        (
            "ALTER TABLE session_detail ADD COLUMN since TEXT NOT NULL DEFAULT ''",
            "UPDATE session_detail SET since=strftime('%Y-%m-%dT%H:%M:%f+00:00', 'now')",
        ),
    ),
    Migration(
        3,
        "who created a session; the history by time",
        (
            "ALTER TABLE session_detail ADD COLUMN created_by TEXT NOT NULL DEFAULT 'system'",
            """UPDATE session_detail SET created_by=coalesce((SELECT user FROM event
                WHERE event.session_id=session_detail.session_id ORDER BY event_id LIMIT 1),
                'system')""",
            "CREATE INDEX event_by_time ON event (time, event_id)",
        ),
    ),
)

LATEST = MIGRATIONS[-1].version

VERSION_TABLE = (
    "CREATE TABLE IF NOT EXISTS schema_version "
    "(version INTEGER PRIMARY KEY, name TEXT NOT NULL, applied_at TEXT NOT NULL)"
)

STOCK_BEFORE = ("ALTER TABLE session RENAME TO stock_session",)
"""What precedes version 1 on a file that jupyter_server's own SessionManager wrote."""

STOCK_AFTER = (
    """INSERT OR IGNORE INTO session SELECT session_id, path, name, type, kernel_id
        FROM stock_session WHERE session_id IS NOT NULL""",
    "DROP TABLE stock_session",
)
