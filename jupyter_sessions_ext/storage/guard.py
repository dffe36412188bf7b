"""A guard of an open database: no other program removes its log."""

from __future__ import annotations

import contextlib
import os

from ..host import OWNS_LOCKS, lock, unlock

_SHARED_BY_SQLITE, _SHARED_BYTES = 0x40000002, 510
"""The bytes of its file that each connection of SQLite has a shared lock on."""


class Guard:
    """A lock beside SQLite's own on a database that is open.

    The last program that closes a database removes its log. Whether it is the last one it tells by
    an exclusive lock. SQLite's own locks are POSIX locks: they are lost as soon as anything else in
    this process closes the file, as a contents manager does that has shown it to a user. This one
    is not. The file must be opened by SQLite before it, and closed before :meth:`close`.

    :param location: the database's path; where the system has no such locks, nothing is done
    """

    def __init__(self, location: str) -> None:
        self._file: int | None = None
        if OWNS_LOCKS:
            with contextlib.suppress(OSError):
                self._file = os.open(location, os.O_RDONLY | os.O_CLOEXEC)
                lock(self._file, _SHARED_BY_SQLITE, _SHARED_BYTES, is_shared=True)

    def let_go(self) -> None:
        """Unlock it: this process is about to close it, and may be the last."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                unlock(self._file, _SHARED_BY_SQLITE, _SHARED_BYTES)

    def close(self) -> None:
        """Close the file; that frees all POSIX locks of this process on it."""
        file, self._file = self._file, None
        if file is not None:
            os.close(file)
