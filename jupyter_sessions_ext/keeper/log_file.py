"""A kernel's log file: what its process writes outside of cells, which must not fill the disk."""

from __future__ import annotations

import os
from pathlib import Path

LOG_LIMIT = 1 << 20
"""Bytes; a longer log keeps its last half."""


def shorten(log: Path, limit: int = LOG_LIMIT) -> None:
    """Keep the last half of the limit, if a log is longer.

    The kernel appends meanwhile: it always writes at the end that the file then has.

    :raises OSError: there is no log, or it cannot be written
    """
    if log.stat().st_size <= limit:
        return
    with open(log, "rb") as file:
        file.seek(-limit // 2, os.SEEK_END)
        tail = file.read(limit)
    with open(log, "r+b") as file:
        file.truncate(0)
    with open(log, "ab") as file:
        file.write(b"[... earlier output was dropped ...]\n" + tail.partition(b"\n")[2])
