"""A folder's lock: who has it is its keeper."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import struct
import sys
from pathlib import Path

from .protocol import LOCK, namespaces

_LEASE_BYTES = 0x40000000, 512
"""Start and length of what SQLite locks of the file ``lease``."""


class Lock:
    """The lock of a folder, as long as that is there.

    :raises BlockingIOError: there is a keeper
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = _lock_in(folder)
        self._opened = os.open(folder, os.O_RDONLY)

    def lost(self) -> str | None:
        """Return why it is not this keeper's any more; a file that was removed is made anew."""
        if os.fstat(self._opened).st_nlink == 0:
            return "the folder is gone"
        if os.fstat(self._file).st_nlink == 0:
            try:
                file = _lock_in(self._folder)
            except BlockingIOError:
                return "there is another keeper"
            except OSError:  # as on a full disk: another time
                return None
            os.close(self._file)
            self._file = file
        return None


def is_leased(workspace: Path) -> bool:
    """Tell whether a server, or a command, has a workspace's lease: it may be about to come back.

    See :mod:`..lease`. Elsewhere than on Linux it is not known.
    """
    if sys.platform != "linux":
        return False
    layout = "hhqqi"  # struct flock
    asked = struct.pack(layout, fcntl.F_WRLCK, os.SEEK_SET, *_LEASE_BYTES, 0)
    with contextlib.suppress(OSError), open(workspace / "lease", "rb") as file:
        answer = fcntl.fcntl(file.fileno(), fcntl.F_GETLK, asked)
        return bool(struct.unpack(layout, answer)[0] != fcntl.F_UNLCK)
    return False


def _lock_in(folder: Path) -> int:
    file = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        # Not flock: of this lock the system tells who has it. The file is opened here only.
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1)
    except OSError as error:
        os.close(file)
        raise BlockingIOError(f"{folder} is locked") from error
    with contextlib.suppress(OSError):  # on a full disk nobody is told of it
        os.ftruncate(file, 0)
        os.pwrite(file, json.dumps({"pid": os.getpid(), "namespaces": namespaces()}).encode(), 0)
    return file
