"""The state folder: who may see it, who holds its lease, and which folders belong together."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import sqlite3
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .errors import StateRefusedError
from .host import NAMES_LOCKERS, locker, machine_id

STATE_DIR = "jupyter_sessions_ext"
"""Name of the folder below Jupyter's data folder."""

_MOST_SIBLINGS = 99

_LOCKED_BY_SQLITE, _LOCKED_BYTES = 0x40000000, 512
"""The bytes of its file that an exclusive transaction of SQLite locks."""


class Lease:
    """The right to write a workspace, held until released or until the process ends, however.

    It is an exclusive transaction on an empty SQLite file: the one lock that the standard library
    has on every platform, and that ``kill -9`` frees. The file must not be opened otherwise: with
    POSIX locks, closing any descriptor of it would free the lease.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    @classmethod
    def take(cls, folder: Path) -> Lease | None:
        """Take the lease of a folder, or return ``None`` when another server has it.

        :raises OSError: the folder cannot be written
        """
        path = folder / "lease"
        with contextlib.suppress(FileExistsError):
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        connection: sqlite3.Connection | None = None
        try:
            connection = sqlite3.connect(
                path, timeout=0, isolation_level=None, check_same_thread=False
            )
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
        return cls(connection)

    @classmethod
    def holder(cls, folder: Path) -> int | None:
        """Return the pid of who has the lease of a folder, or ``None`` when it is free.

        The pid is 0 where it cannot be told. Nothing is taken where the system names who holds it,
        so that no server that starts finds the lease taken; elsewhere it is, for a moment. Not for
        a process that holds it: it would lose it.

        :raises OSError: it cannot be told whether it is free
        """
        if not (folder / "lease").exists():
            return None
        if not NAMES_LOCKERS:
            lease = cls.take(folder)
            if lease is not None:
                lease.release()
            return None if lease else 0
        with contextlib.suppress(FileNotFoundError), open(folder / "lease", "rb") as file:
            return locker(file.fileno(), _LOCKED_BY_SQLITE, _LOCKED_BYTES)
        return None

    def release(self) -> None:
        """Let others have it."""
        self._connection.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where one workspace keeps its state."""

    key: str
    """The folder's name: readable, and a digest of what the workspace is for and of the host."""
    folder: Path
    root_dir: str
    database: str

    @property
    def about(self) -> Path:
        """The file that tells tools without a server what this folder is for."""
        return self.folder / "workspace.json"

    @property
    def keeper(self) -> Path:
        """The keeper's folder: its socket and log, and what kernels have sent."""
        return self.folder / "keeper"

    def log_file(self, kernel_id: str) -> Path:
        """Return where a kernel's own output and its crash traces go."""
        # A client may choose the id: it must not lead out of the folder.
        name = re.sub(r"[^\w.-]", "_", kernel_id)[:100]
        return self.folder / "logs" / f"kernel-{name}.log"


def absolute(folder: str | Path) -> Path:
    """Return a folder as it is meant: of the home folder, or of the working directory."""
    return Path(os.path.abspath(os.path.expanduser(folder)))


def places(state_dir: Path, root_dir: str, database: str | None) -> Iterator[Place]:
    """Yield a workspace's own place and then those of its siblings, in order.

    :param database: an explicit database file; the workspace is then that file's
    """
    subject = os.path.realpath(database or root_dir)
    digest = hashlib.sha256(f"{machine_id()}\0{bool(database)}\0{subject}".encode()).hexdigest()
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", os.path.basename(subject)).strip("-.")[:40] or "root"
    for number in range(1, _MOST_SIBLINGS + 1):
        suffix = "" if number == 1 else f"-{number}"
        key = f"{name}-{digest[:12]}{suffix}"
        folder = state_dir / key
        # A sibling's database is in its folder: beside the user's file there may be others.
        file = subject if database and number == 1 else str(folder / "sessions.sqlite")
        yield Place(key=key, folder=folder, root_dir=root_dir, database=file)


def known_places(state_dir: Path) -> Iterator[Place]:
    """Yield every workspace of this host that has a state folder."""
    if not state_dir.is_dir():
        return
    for about in sorted(state_dir.glob("*/workspace.json")):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            known = json.loads(about.read_text())
            if known["machine"] == machine_id():
                yield Place(
                    key=about.parent.name,
                    folder=about.parent,
                    root_dir=known["root_dir"],
                    database=known["database"],
                )


def prepare(place: Place) -> None:
    """Make a place's folder, for its user alone.

    :raises StateRefusedError: it belongs to another user, or others may write to it
    :raises OSError: it cannot be made
    """
    for folder in _folders(place):
        folder.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
        _tighten(folder, _FOLDER_MODE, _OTHERS_WRITE)
    for path, refused in _files(place):
        _tighten(path, _FILE_MODE, refused)


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with a part of a place."""

    path: Path
    reason: str
    is_refused: bool
    """Whether no server uses the place for that; else the next one mends it."""


def faults(place: Place) -> Iterator[Fault]:
    """Yield what is wrong with the parts of a place that are there, and change nothing."""
    folders = [
        (path, _FOLDER_MODE, _OTHERS_WRITE)
        for path in _folders(place)
        if path.is_dir() or path.is_symlink()
    ]
    files = [(path, _FILE_MODE, refused) for path, refused in _files(place)]
    for path, mode, refused in (*folders, *files):
        reason = _refusal(path, mode, refused)
        if reason is not None:
            yield Fault(path, reason, is_refused=True)
        elif os.name == "posix" and (found := stat.S_IMODE(path.stat().st_mode)) & ~mode:
            yield Fault(path, f"others may look into it (mode {found:04o})", is_refused=False)


def _folders(place: Place) -> tuple[Path, ...]:
    return (place.folder.parent, place.folder, place.folder / "logs")


def _files(place: Place) -> Iterator[tuple[Path, int]]:
    """Yield the files of a place's database that are there, with the bits that are refused."""
    database = Path(place.database)
    own = database.parent == place.folder
    for path in (database, *(Path(f"{database}-{part}") for part in ("wal", "shm", "journal"))):
        if path.exists() or path.is_symlink():
            # A file that stock wrote may be group-writable by the umask: it is tightened.
            yield path, stat.S_IWOTH | (stat.S_IWGRP if own else 0)


def describe(place: Place) -> None:
    """Write what the folder is for beside its state."""
    text = json.dumps(
        {"root_dir": place.root_dir, "database": place.database, "machine": machine_id()}
    )
    if not place.about.exists() or place.about.read_text() != text:
        draft = place.about.with_suffix(".new")
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(text)
        os.replace(draft, place.about)


def discard(place: Place) -> None:
    """Remove a place whose state has moved elsewhere. Its lease must be held, and goes with it."""
    shutil.rmtree(place.folder, ignore_errors=True)


_FOLDER_MODE, _FILE_MODE = 0o700, 0o600
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def _tighten(path: Path, mode: int, refused: int) -> None:
    """Refuse what others control; take read access from others where they have it."""
    reason = _refusal(path, mode, refused)
    if reason is not None:
        raise StateRefusedError(str(path), reason)
    if stat.S_IMODE(path.stat().st_mode) & ~mode:
        path.chmod(mode)


def _refusal(path: Path, mode: int, refused: int) -> str | None:
    """Return why a path must not be used, if so."""
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode):
        return "it is a symbolic link"
    if hasattr(os, "geteuid") and status.st_uid != os.geteuid():
        return f"it belongs to user {status.st_uid}, the server runs as {os.geteuid()}"
    if os.name == "posix" and status.st_mode & refused:
        return (
            f"others may write to it (mode {stat.S_IMODE(status.st_mode):04o}); "
            f"look who did, then: chmod {mode:04o} '{path}'"
        )
    return None
