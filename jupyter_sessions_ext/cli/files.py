"""Files that are read and written, and the standard streams in their place."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import BinaryIO

from .outcome import CommandError

STANDARD = "-"
"""In place of a file: the standard output, or input."""


@contextlib.contextmanager
def written(name: str) -> Iterator[BinaryIO]:
    """Open what is written to; a file is there when it is whole, and not before.

    :raises CommandError: it cannot be written
    """
    if name == STANDARD:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    draft = f"{name}.part"
    try:
        with open(draft, "wb") as file:
            yield file
        os.replace(draft, name)
    except OSError as error:
        raise CommandError(f"{name} cannot be written: {error}") from error
    finally:
        with contextlib.suppress(OSError):
            os.unlink(draft)
