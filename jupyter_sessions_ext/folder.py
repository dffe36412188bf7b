"""The state folder: who may see it, and which folders belong together."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from .errors import StateRefusedError
from .host import machine_id

STATE_DIR = "jupyter_sessions_ext"
"""Name of the folder below Jupyter's data folder."""

_MOST_SIBLINGS = 99

_LONGEST_NAME = 200
"""Bytes; most file systems take 255."""


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
        # A client may choose the id: it must not lead out of the folder, nor to another's log.
        name = quote(kernel_id, safe="")
        if len(name) > _LONGEST_NAME:  # no other name has these letters behind a percent sign
            name = f"%sha256-{hashlib.sha256(kernel_id.encode()).hexdigest()}"
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


def read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object that a file has; an empty one, if it has none that can be read."""
    with contextlib.suppress(OSError, ValueError, RecursionError):
        found = json.loads(path.read_bytes())
        if isinstance(found, dict):
            return found
    return {}


def known_places(state_dir: Path) -> Iterator[Place]:
    """Yield every workspace of this host that has a state folder."""
    if not state_dir.is_dir():
        return
    for about in sorted(state_dir.glob("*/workspace.json")):
        known = read_object(about)
        root_dir, database = known.get("root_dir"), known.get("database")
        if (
            known.get("machine") == machine_id()
            and isinstance(root_dir, str)
            and isinstance(database, str)
        ):
            yield Place(
                key=about.parent.name,
                folder=about.parent,
                root_dir=root_dir,
                database=database,
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
    said = {"root_dir": place.root_dir, "database": place.database, "machine": machine_id()}
    if read_object(place.about) != said:
        draft = place.about.with_suffix(".new")
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(said, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, place.about)
        for folder in (place.folder, place.folder.parent):
            _sync(folder)


def _sync(folder: Path) -> None:
    """Have the names in a folder survive a power cut, where the system can."""
    with contextlib.suppress(OSError):
        file = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(file)
        finally:
            os.close(file)


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
