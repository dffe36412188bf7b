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
from .host import machine_id

STATE_DIR = "jupyter_sessions_ext"
"""Name of the folder below Jupyter's data folder."""

_MOST_SIBLINGS = 99


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

    def log_file(self, kernel_id: str) -> Path:
        """Return where a kernel's own output and its crash traces go."""
        # A client may choose the id: it must not lead out of the folder.
        name = re.sub(r"[^\w.-]", "_", kernel_id)[:100]
        return self.folder / "logs" / f"kernel-{name}.log"


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
    for folder in (place.folder.parent, place.folder, place.folder / "logs"):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check(folder, tighten=0o700, refused=stat.S_IWGRP | stat.S_IWOTH)
    database = Path(place.database)
    own = database.parent == place.folder
    for path in (database, *(Path(f"{database}-{part}") for part in ("wal", "shm", "journal"))):
        if path.exists() or path.is_symlink():
            # A file that stock wrote may be group-writable by the umask: it is tightened.
            refused = stat.S_IWOTH | (stat.S_IWGRP if own else 0)
            _check(path, tighten=0o600, refused=refused)


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


def _check(path: Path, *, tighten: int, refused: int) -> None:
    """Refuse what others control; take read access from others where they have it."""
    status = path.lstat()
    if stat.S_ISLNK(status.st_mode):
        raise StateRefusedError(str(path), "it is a symbolic link")
    if hasattr(os, "geteuid") and status.st_uid != os.geteuid():
        raise StateRefusedError(
            str(path), f"it belongs to user {status.st_uid}, the server runs as {os.geteuid()}"
        )
    if os.name == "posix" and status.st_mode & refused:
        raise StateRefusedError(
            str(path),
            f"others may write to it (mode {stat.S_IMODE(status.st_mode):04o}); "
            f"look who did, then: chmod {tighten:04o} '{path}'",
        )
    if stat.S_IMODE(status.st_mode) & ~tighten:
        path.chmod(tighten)
