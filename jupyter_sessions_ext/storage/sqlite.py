"""The store on SQLite: one file, write-ahead log, every commit synced to the disk."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import sqlite3
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import aiosqlite

from ..errors import (
    SchemaTooNewError,
    StoreCorruptError,
    StoreGoneError,
    StoreUnavailableError,
    ValueRefusedError,
)
from ..models import Change, Event, EventFilter, Snapshot, now
from .guard import Guard
from .history import SELECT_UNKNOWN, count_events, event_row, read_events, select_events
from .migrations import LATEST, MIGRATIONS, STOCK_AFTER, STOCK_BEFORE, VERSION_TABLE
from .rows import (
    FORGET_OLD_SERVERS,
    SELECT_KERNELS,
    SELECT_LAST_SEEN,
    SELECT_SESSIONS,
    read_kernel,
    read_session,
    statements,
    to_json,
)

MEMORY = ":memory:"
BUSY_TIMEOUT = 5.0
"""Seconds to wait for another process (a backup, an administrator's shell) to let go."""

CLOSE_TIMEOUT = 1.0
"""Seconds that closing waits for what is queued; the thread is a daemon and ends in any case."""

CHECKPOINT_TIMEOUT = 0.2
"""Seconds to wait for readers before the log is emptied another time."""

# What is deleted is overwritten in the file; what is in the log goes with :meth:`checkpoint`.
_PRAGMAS = ("PRAGMA synchronous=FULL", "PRAGMA secure_delete=ON")
_NO_CHANGE = (
    ("INSERT INTO schema_version VALUES (?,?,?)", [(-1, "", "")]),
    ("DELETE FROM schema_version WHERE version=?", [(-1,)]),
)
"""Statements that write to the disk, and change nothing."""

_NOT_A_DATABASE = ("file is not a database", "malformed", "file is encrypted")


class SQLiteStore:
    """A :class:`~.store.Store` in a SQLite file, or in memory for as long as it is open.

    :param location: the file's path, or ``":memory:"``
    :param wal: write-ahead log (default) or, as network file systems need, a rollback journal
    """

    backend = "sqlite"

    def __init__(self, location: str = MEMORY, *, wal: bool = True) -> None:
        self.location = location
        self.journal_bytes = 0
        self._journal = "WAL" if wal else "DELETE"
        self._opened: aiosqlite.Connection | None = None
        self._with_worker: aiosqlite.Connection | None = None
        """The connection whose thread runs, opened or being opened."""
        self._opening = asyncio.Lock()
        self.backup: str | None = None
        """The copy that was made of it before it was migrated, if it was."""
        self._inode: int | None = None
        self._log_inode: int | None = None
        self._guard: Guard | None = None
        self._writing = asyncio.Lock()
        self._checking: asyncio.Future[None] | None = None
        self._closed = False

    # ------------------------------------------------------------------ the start, blocking

    def open(self) -> Snapshot:
        """Back up, migrate and load; see :meth:`.store.Store.open`."""
        if self.location == MEMORY:
            return Snapshot()
        try:
            with self._errors():
                self._create()
                self._refuse_newer()
                with contextlib.closing(self._connect()) as connection:
                    self._back_up(connection)
                    self._migrate(connection)
                    snapshot = _load(connection)
        except StoreCorruptError:
            raise
        except StoreUnavailableError:
            # A full disk has no room for the log's index file: one process alone needs none.
            with self._errors(), contextlib.closing(self._connect(alone=True)) as connection:
                snapshot = _load(connection)
        self._inode = os.stat(self.location).st_ino
        return snapshot

    def peek(self, *, unused: bool = False) -> Snapshot:
        """Return what is held without changing anything, also while a server uses it.

        :param unused: none does: not even the empty files of a log are made
        :raises StoreUnavailableError: it cannot be read
        """
        with self._copy(unused) as copy:
            return _load(copy)

    def peek_events(
        self, wanted: EventFilter, *, most: int | None = None, unused: bool = False
    ) -> list[Event]:
        """Return a part of the history, the latest first, without changing anything.

        :param unused: as for :meth:`peek`
        :raises StoreUnavailableError: it cannot be read
        """
        with self._copy(unused) as copy:
            return read_events(copy.execute(*select_events(wanted, most=most, latest_first=True)))

    def peek_version(self, *, unused: bool = False) -> int:
        """Return the schema's version, without changing anything; 0: nothing of ours is there.

        :param unused: as for :meth:`peek`
        :raises StoreUnavailableError: it cannot be read
        """
        with self._errors(), self._connect_to_read(unused) as connection:
            return _version(connection)

    @contextlib.contextmanager
    def _copy(self, unused: bool) -> Iterator[sqlite3.Connection]:
        """Copy it to memory, and bring the copy up to date: the file is not ours to migrate."""
        with (
            self._errors(),
            self._connect_to_read(unused) as connection,
            contextlib.closing(sqlite3.connect(MEMORY, isolation_level=None)) as copy,
        ):
            connection.backup(copy)
            copy.row_factory = sqlite3.Row
            self._migrate(copy)
            yield copy

    def all_events(self) -> tuple[Event, ...]:
        """Return the whole history, to be taken over by another store.

        :raises StoreUnavailableError: it cannot be read
        """
        with self._errors(), contextlib.closing(self._connect()) as connection:
            return tuple(read_events(connection.execute(*select_events(EventFilter()))))

    def commit_now(self, change: Change) -> None:
        """Commit on a connection of its own; see :meth:`.store.Store.commit_now`."""
        if self.location == MEMORY:
            return
        with (
            self._errors(),
            contextlib.closing(self._connect()) as connection,
            _transaction(connection),
        ):
            for sql, rows in statements(change):
                connection.executemany(sql, rows)
            connection.execute(FORGET_OLD_SERVERS)

    def _uri(self, mode: str) -> str:
        return f"{Path(self.location).absolute().as_uri()}?mode={mode}"

    @contextlib.contextmanager
    def _connect_to_read(self, unused: bool) -> Iterator[sqlite3.Connection]:
        # Without a log to be read, not even the log's empty files are made.
        has_log = any(os.path.exists(f"{self.location}-{log}") for log in ("wal", "journal"))
        uri = self._uri("ro&immutable=1" if unused and not has_log else "ro")
        with contextlib.closing(sqlite3.connect(uri, uri=True)) as connection:
            yield connection

    def _refuse_newer(self) -> None:
        """Look at the schema before anything is written, the journal mode included."""
        if not os.path.exists(self.location) or os.path.exists(f"{self.location}-journal"):
            return  # what was being written must be rolled back before anything can be read
        with self._connect_to_read(True) as connection:
            found = _version(connection)
        if found > LATEST:
            raise SchemaTooNewError(self.location, found, LATEST)

    def _create(self) -> None:
        """Create the file before SQLite does: it is never readable by others, not for an instant.

        Nothing else here opens it but SQLite: to close it would free the locks of a connection.
        """
        with contextlib.suppress(FileExistsError):
            os.close(os.open(self.location, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))

    def _connect(self, *, alone: bool = False) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._uri("rw"), uri=True, timeout=BUSY_TIMEOUT, isolation_level=None
        )
        connection.row_factory = sqlite3.Row
        try:
            if alone:
                connection.execute("PRAGMA locking_mode=EXCLUSIVE")
                connection.execute("PRAGMA query_only=ON")
            else:
                _tolerate_read_only(connection, f"PRAGMA journal_mode={self._journal}")
                for pragma in _PRAGMAS:
                    connection.execute(pragma)
        except BaseException:
            connection.close()
            raise
        return connection

    def _migrate(self, connection: sqlite3.Connection) -> None:
        """Bring the schema up to date.

        :raises SchemaTooNewError: a newer version wrote it
        :raises StoreCorruptError: a part of the schema is missing
        """
        found = _version(connection)
        if found > LATEST:
            raise SchemaTooNewError(self.location, found, LATEST)
        if found == 0 and "session_detail" in _tables(connection):  # that is no stock file
            raise StoreCorruptError(self.location, "its schema has no version")
        if found:
            self._refuse_incomplete(connection, found)
        stock = found == 0 and "session" in _tables(connection)
        for migration in MIGRATIONS[found:]:
            with _transaction(connection):
                first_of_stock = stock and migration.version == 1
                connection.execute(VERSION_TABLE)
                for sql in (
                    *(STOCK_BEFORE if first_of_stock else ()),
                    *migration.sqlite,
                    *(STOCK_AFTER if first_of_stock else ()),
                ):
                    connection.execute(sql)
                connection.execute(
                    "INSERT INTO schema_version VALUES (?,?,?)",
                    (migration.version, migration.name, now().isoformat()),
                )

    def _refuse_incomplete(self, connection: sqlite3.Connection, version: int) -> None:
        """Refuse a schema of which a table or a column is missing.

        :raises StoreCorruptError: so it is
        """
        for table, columns in _columns_of(version).items():
            found = _columns(connection, table)
            if missing := columns - found:
                what = f"column {min(missing)} of table" if found else "table"
                raise StoreCorruptError(self.location, f"{what} {table} is missing")

    def _back_up(self, connection: sqlite3.Connection) -> None:
        """Copy what is about to be migrated."""
        version = _version(connection)
        if version >= LATEST or not _tables(connection):
            return
        path = f"{self.location}.backup-v{version}"
        if os.path.lexists(path):
            path += f"-{now().strftime('%Y%m%dT%H%M%S%f')}"
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        with contextlib.closing(sqlite3.connect(path)) as backup:
            connection.backup(backup)
        self.backup = path

    # ------------------------------------------------------------------ afterwards, off the loop

    async def connection(self) -> aiosqlite.Connection:
        """Return the asynchronous connection; it opens on first use.

        :raises StoreUnavailableError: it cannot be opened, or the store is closed
        """
        async with self._opening:
            if self._closed:
                raise StoreUnavailableError(self.location, "it is closed")
            if self._opened is None:
                with self._errors():
                    self._opened = await self._connect_async()
        return self._opened

    async def _connect_async(self) -> aiosqlite.Connection:
        # A file that was deleted must be noticed, not made anew.
        target = MEMORY if self.location == MEMORY else self._uri("rw")
        connector = aiosqlite.connect(
            target, uri=True, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False
        )
        # An interpreter that ends without close() must not wait for this thread for ever.
        connector._thread.daemon = True
        self._with_worker = connector
        try:
            connection = await connector
        except BaseException as error:
            # Its thread is ending; it must have told this loop before the loop can be closed.
            connector._thread.join(CLOSE_TIMEOUT)
            if isinstance(error, sqlite3.OperationalError) and not self._state_is_there():
                raise StoreGoneError(self.location) from None
            raise
        try:
            connection.row_factory = sqlite3.Row
            for pragma in _PRAGMAS:
                await connection.execute(pragma)
            await connection.create_function("state_is_there", 0, self._state_is_there)
            if self.location == MEMORY:
                for migration in MIGRATIONS:
                    await connection.executescript(";".join(migration.sqlite))
            else:
                # SQLite opens the log when it reads for the first time.
                await connection.execute_fetchall("SELECT count(*) FROM schema_version")
                await connection.execute_fetchall("SELECT state_is_there()")
                if self._journal == "WAL":
                    self._guard = await asyncio.to_thread(Guard, self.location)
        except BaseException:
            _stop(connection)
            raise
        return connection

    def _state_is_there(self) -> bool:
        """Tell whether the paths still name the open files (asked in the worker thread)."""
        if self.location == MEMORY:
            return True
        try:
            if os.stat(self.location).st_ino != self._inode:
                return False
            if self._journal != "WAL":
                return True
            log = os.stat(f"{self.location}-wal")
        except OSError:
            # A file that cannot be written may have no log.
            return self._log_inode is None and os.path.exists(self.location)
        self.journal_bytes = log.st_size
        if self._log_inode is None:
            self._log_inode = log.st_ino
        return log.st_ino == self._log_inode

    async def commit(self, change: Change) -> None:
        """Commit in one transaction; see :meth:`.store.Store.commit`."""
        await self._commit(statements(change))

    async def _commit(self, wanted: Iterable[tuple[str, Sequence[Any]]]) -> None:
        connection = await self.connection()
        with self._errors():
            async with self._writing:
                await self._refuse_gone(connection)
                try:
                    await connection.execute("BEGIN IMMEDIATE")
                    for sql, rows in wanted:
                        await connection.executemany(sql, rows)
                    await connection.execute("COMMIT")
                except BaseException:
                    with contextlib.suppress(sqlite3.Error):
                        await connection.execute("ROLLBACK")
                    raise
                # Who removed the log meanwhile has removed this change with it.
                if not self._closed:
                    await self._refuse_gone(connection)

    async def _refuse_gone(self, connection: aiosqlite.Connection) -> None:
        """Refuse to write to files that have no name any more.

        :raises StoreGoneError: so it is
        """
        [[there]] = await connection.execute_fetchall("SELECT state_is_there()")
        if not there:
            raise StoreGoneError(self.location)

    async def checkpoint(self) -> None:
        """Empty the log; see :meth:`.store.Store.checkpoint`."""
        if self.location == MEMORY or self._journal != "WAL":
            return
        connection = await self.connection()
        with self._errors():
            async with self._writing:
                await self._refuse_gone(connection)
                await connection.execute(f"PRAGMA busy_timeout={CHECKPOINT_TIMEOUT * 1000:.0f}")
                try:
                    await connection.execute_fetchall("PRAGMA wal_checkpoint(TRUNCATE)")
                finally:
                    await connection.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT * 1000:.0f}")

    async def events(
        self,
        wanted: EventFilter,
        *,
        after: Event | None = None,
        most: int | None = None,
        latest_first: bool = False,
    ) -> list[Event]:
        """Return a part of the history; see :meth:`.store.Store.events`."""
        connection = await self.connection()
        sql = select_events(wanted, after=after, most=most, latest_first=latest_first)
        with self._errors():
            return read_events(map(dict, await connection.execute_fetchall(*sql)))

    async def count_events(self, wanted: EventFilter) -> int:
        """Count events; see :meth:`.store.Store.count_events`."""
        connection = await self.connection()
        with self._errors():
            [[count]] = await connection.execute_fetchall(*count_events(wanted))
        return int(count)

    async def unknown_events(self, events: Sequence[Event]) -> list[Event]:
        """Return those that are not there; see :meth:`.store.Store.unknown_events`."""
        connection = await self.connection()
        rows = to_json([event_row(event) for event in events])
        with self._errors():
            found = await connection.execute_fetchall(SELECT_UNKNOWN, (rows,))
        return [events[place] for (place,) in found]

    async def check(self) -> None:
        """Write something, and take it back; see :meth:`.store.Store.check`."""
        if self.location == MEMORY:
            return
        if self._checking is None or self._checking.done():
            self._checking = asyncio.ensure_future(self._commit(_NO_CHANGE))
            self._checking.add_done_callback(lambda done: done.cancelled() or done.exception())
        await asyncio.shield(self._checking)  # who asks may not wait so long

    def close(self) -> None:
        """Let the worker thread finish its queue and end."""
        self._closed = True
        connection, self._with_worker, self._opened = self._with_worker, None, None
        guard, self._guard = self._guard, None
        if guard is not None:
            guard.let_go()
        has_ended = connection is None or _stop(connection)
        if guard is not None and has_ended:
            guard.close()

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (StoreUnavailableError, SchemaTooNewError):
            raise
        except (sqlite3.InterfaceError, OverflowError, UnicodeError) as error:
            raise ValueRefusedError(str(error)) from error
        except sqlite3.DatabaseError as error:
            if "binding parameter" in str(error):
                raise ValueRefusedError(str(error)) from error
            if any(sign in str(error) for sign in _NOT_A_DATABASE):
                raise StoreCorruptError(self.location, str(error)) from error
            raise StoreUnavailableError(self.location, str(error)) from error
        except (OSError, ValueError) as error:
            raise StoreUnavailableError(self.location, str(error)) from error


def is_sqlite_file(path: str | Path) -> bool:
    """Tell whether a file is a SQLite 3 database by its header, or empty, or absent."""
    try:
        with open(path, "rb") as file:
            header = file.read(16)
    except FileNotFoundError:
        return True
    return header in (b"", b"SQLite format 3\0")


def _version(connection: sqlite3.Connection) -> int:
    """Return the schema's version; 0 where nothing of ours is there."""
    known = "SELECT count(*) FROM sqlite_master WHERE name='schema_version'"
    if not connection.execute(known).fetchone()[0]:
        return 0
    return int(connection.execute("SELECT max(version) FROM schema_version").fetchone()[0] or 0)


def _tables(connection: sqlite3.Connection) -> set[str]:
    return {row["name"] for row in connection.execute("SELECT name FROM sqlite_master")}


@functools.cache
def _columns_of(version: int) -> dict[str, set[str]]:
    """Return the columns of each table of a version of the schema."""
    with contextlib.closing(sqlite3.connect(MEMORY)) as fresh:
        fresh.row_factory = sqlite3.Row
        fresh.execute(VERSION_TABLE)
        for migration in MIGRATIONS[:version]:
            fresh.executescript(";".join(migration.sqlite))
        tables = fresh.execute("SELECT name FROM sqlite_master WHERE type='table'").fetchall()
        return {table: _columns(fresh, table) for (table,) in tables}


def _columns(connection: sqlite3.Connection, table: str) -> set[str]:
    rows = connection.execute("SELECT name FROM pragma_table_info(?)", (table,))
    return {row["name"] for row in rows}


def _load(connection: sqlite3.Connection) -> Snapshot:
    """Read everything; a record that makes no sense is as bad as a page that does not."""
    try:
        [[last_seen]] = connection.execute(SELECT_LAST_SEEN)
        return Snapshot(
            sessions=tuple(map(read_session, connection.execute(SELECT_SESSIONS))),
            kernels=tuple(map(read_kernel, connection.execute(SELECT_KERNELS))),
            last_seen=datetime.fromisoformat(last_seen) if last_seen else None,
        )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise sqlite3.DatabaseError(f"malformed record: {error!r}") from error


def _tolerate_read_only(connection: sqlite3.Connection, pragma: str) -> None:
    """Set what a file that cannot be written keeps as it is: reads go on."""
    try:
        connection.execute(pragma)
    except sqlite3.OperationalError as error:
        if "readonly" not in str(error):
            raise


def _stop(connection: aiosqlite.Connection) -> bool:
    """End a connection's thread from anywhere, with a loop that runs, is closed or is absent.

    Tell whether it is closed.
    """
    if sys.is_finalizing():
        return False  # no thread starts any more, and the worker, a daemon, has ended
    # In a thread without a loop, stop() makes no future whose loop could be closed by then.
    stopper = threading.Thread(target=connection.stop, daemon=True)
    stopper.start()
    stopper.join()
    if connection._thread is not threading.current_thread():  # a collector may run anywhere
        connection._thread.join(CLOSE_TIMEOUT)
    if connection._thread.is_alive():
        return False  # it waits for a lock; to close its connection here would wait as long
    opened, connection._connection = connection._connection, None
    if opened is not None:  # it was closed while it was being opened
        opened.close()
    return True


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[Any]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise
