"""What a flood of messages has taken of the machine's memory is given back to it.

All is imported when the keeper starts: it outlives the upgrade of the Python that it runs on.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Callable

WORTH = 8 << 20
"""Bytes that more must be resident than before, so that it is worth the while."""


class Memory:
    """A process's own. glibc keeps what is freed between other things, until it is told."""

    def __init__(self) -> None:
        self._least = resident()
        # Of another library's memory nothing can be said.
        self._trim: Callable[[int], object] = getattr(
            ctypes.CDLL(None), "malloc_trim", lambda _: None
        )

    def give_back(self) -> None:
        """Give back what is free, if that may be much."""
        now = resident()
        self._least = min(self._least, now)
        if now - self._least > WORTH:
            self._trim(0)  # some 0.1 ms; what is in use now may be free the next time


def resident() -> int:
    """Return how many bytes of this process are resident; 0, where that is not told."""
    with contextlib.suppress(OSError), open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0
