"""Files that are read and written, and the standard streams in their place."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import tempfile
from collections.abc import Iterator
from typing import BinaryIO

from .outcome import CommandError

STANDARD = "-"
"""In place of a file: the standard output, or input."""


@contextlib.contextmanager
def written(name: str) -> Iterator[BinaryIO]:
    """Open what is written to; a file is there when it is whole, and not before.

    A file is its user's alone, also one that replaces another: it may hold what a kernel printed.
    A link stays, and what it names is replaced. What is there and no file is written to.

    :raises CommandError: it cannot be written
    """
    if name == STANDARD:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    try:
        with _in_place(name) if _is_in_place(name) else _replacing(os.path.realpath(name)) as file:
            yield file
    except OSError as error:
        raise CommandError(f"{name} cannot be written: {error}") from error


def _is_in_place(name: str) -> bool:
    """Tell whether what is there stays, and is written to: a device, a pipe, an open file."""
    if os.path.abspath(name).startswith(("/dev/", "/proc/")):
        return True
    try:
        return not stat.S_ISREG(os.stat(name).st_mode)
    except FileNotFoundError:
        return False


def _in_place(name: str) -> BinaryIO:
    return open(name, "wb")


@contextlib.contextmanager
def _replacing(name: str) -> Iterator[BinaryIO]:
    """Write a file beside the one that it replaces when it is whole; it is its user's alone."""
    folder = os.path.dirname(name)
    descriptor, draft = tempfile.mkstemp(prefix=".jupyter-sessions-", dir=folder)
    try:
        with open(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(descriptor)
        os.replace(draft, name)
    except BaseException:
        os.unlink(draft)
        raise
