"""The lease of a workspace: the right to write it, which one process has at a time."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from pathlib import Path
from typing import Any, NamedTuple

from .host import (
    NAMES_LOCKERS,
    OWNS_LOCKS,
    boot_id,
    identify,
    is_locked,
    lock,
    locker,
    pid_namespace,
)

LEASE, HOLDER = "lease", "holder.json"
"""Files in the workspace's folder."""

_LOCKED_BY_SQLITE, _LOCKED_BYTES = 0x40000000, 512
"""The bytes of its file that an exclusive transaction of SQLite locks."""


class Holder(NamedTuple):
    """Who has a lease."""

    pid: int
    """Its process; 0: it cannot be told."""
    command: str = ""
    """The command of ours that it runs, which ends soon; empty: a server, or unknown."""
    is_weakened: bool = False
    """Whether one of its two locks is lost: something in its process has read the lease's file."""

    def __str__(self) -> str:
        return f"pid {self.pid or 'unknown'}"


class Lease:
    """The right to write a workspace, held until released or until the process ends, however.

    It is two locks. One is an exclusive transaction on an empty SQLite file, ``lease``: the one
    lock that the standard library has on every platform, and that servers of every version know.
    With POSIX locks it is lost when anything in the process opens that file and closes it, as a
    server may whose business is to read files. The other one, on Linux, is a lock of the open file
    ``holder.json``, which tells who has it, and is not lost so. ``kill -9`` frees both.
    """

    def __init__(self, connection: sqlite3.Connection, file: int | None) -> None:
        self._connection = connection
        self._file = file

    @classmethod
    def take(cls, folder: Path, command: str = "") -> Lease | None:
        """Take the lease of a folder, or return ``None`` when another process has it.

        :param command: for what, if it is held for the time of a command
        :raises OSError: the folder cannot be written
        """
        connection = _begin(folder)
        if connection is None:
            return None
        file: int | None = None
        try:
            if OWNS_LOCKS:
                file = _lock_holder(folder, command)
        except BlockingIOError:
            connection.close()
            return None
        except BaseException:
            connection.close()
            raise
        return cls(connection, file)

    @classmethod
    def holder(cls, folder: Path) -> Holder | None:
        """Return who has the lease of a folder, or ``None`` when it is free.

        Nothing is taken where the system names who holds it, so that no server that starts finds
        the lease taken; elsewhere it is, for a moment. Not for a process that holds it: it would
        lose one of its locks.

        :raises OSError: it cannot be told whether it is free
        """
        if not (folder / LEASE).exists():
            return None
        if not NAMES_LOCKERS:
            lease = cls.take(folder)
            if lease is not None:
                lease.release()
            return None if lease else Holder(0)
        pid: int | None = None
        with contextlib.suppress(FileNotFoundError), open(folder / LEASE, "rb") as file:
            pid = locker(file.fileno(), _LOCKED_BY_SQLITE, _LOCKED_BYTES)
        said = _said(folder)
        if said is None:
            return None if pid is None else Holder(pid)
        return Holder(pid or _pid(said), str(said.get("command", "")), is_weakened=pid is None)

    def release(self) -> None:
        """Let others have it."""
        file, self._file = self._file, None
        if file is not None:
            os.close(file)
        self._connection.close()


def command_at_work(folder: Path) -> Holder | None:
    """Return which command of ours has the lease of a folder; None: none has.

    Unlike :meth:`Lease.holder` it is no harm for a process that holds it.
    """
    said = _said(folder)
    if said is None or not said.get("command"):
        return None
    return Holder(_pid(said), str(said["command"]))


def _begin(folder: Path) -> sqlite3.Connection | None:
    """Begin the transaction that is the first lock; return None when another one has begun it.

    :raises OSError: it cannot be begun
    """
    path = folder / LEASE
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    connection: sqlite3.Connection | None = None
    try:
        connection = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
        connection.execute("BEGIN EXCLUSIVE")
    except sqlite3.Error as error:
        if connection is not None:
            connection.close()
        if "locked" in str(error):
            return None
        if not path.exists():
            raise FileNotFoundError(path) from error
        raise OSError(f"no lease in {folder}: {error}") from error
    if not path.exists():  # a server that merged this folder has just removed it
        connection.close()
        raise FileNotFoundError(path)
    return connection


def _lock_holder(folder: Path, command: str) -> int | None:
    """Lock the file that tells who has the lease, and write that.

    :returns: its descriptor; None where the file system has no such locks: the other one must do
    :raises BlockingIOError: another process has it
    """
    path = folder / HOLDER
    while True:
        try:
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:  # as on a full disk
            return None
        try:
            is_ours = lock(file, 0, 1)
        except OSError:
            os.close(file)
            return None
        if is_ours:
            _write(file, command)
            return file
        said = _read(file)
        os.close(file)
        if not _has_ended(said):
            raise BlockingIOError(path)
        # A child that it has forked has the lock: it is no server, and writes nothing here.
        path.unlink(missing_ok=True)


def _write(file: int, command: str) -> None:
    """Tell who has the lease; on a full disk nobody is told."""
    own = identify(os.getpid())
    said = {
        "pid": os.getpid(),
        "started": own and own.started,
        "boot": boot_id(),
        "namespace": pid_namespace(),
        "command": command,
    }
    with contextlib.suppress(OSError):
        os.ftruncate(file, 0)
        os.pwrite(file, json.dumps(said).encode(), 0)


def _said(folder: Path) -> dict[str, Any] | None:
    """Return what the holder of a folder's lease tells of itself; None: no process has the file."""
    if not OWNS_LOCKS:
        return None
    try:
        file = os.open(folder / HOLDER, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        said = _read(file)
        return said if is_locked(file, 0, 1) and not _has_ended(said) else None
    except OSError:
        return None
    finally:
        os.close(file)


def _read(file: int) -> dict[str, Any]:
    with contextlib.suppress(ValueError, RecursionError):
        said = json.loads(os.pread(file, 1 << 12, 0))
        if isinstance(said, dict):
            return said
    return {}


def _is_of_this_system(said: dict[str, Any]) -> bool:
    return said.get("boot") == boot_id() and said.get("namespace") == pid_namespace()


def _pid(said: dict[str, Any]) -> int:
    pid = said.get("pid")
    return pid if isinstance(pid, int) and _is_of_this_system(said) else 0


def _has_ended(said: dict[str, Any]) -> bool:
    """Tell whether a holder has ended for certain."""
    pid = _pid(said)
    if pid <= 0:
        return False
    process = identify(pid)
    return process is None or process.started != said.get("started")
