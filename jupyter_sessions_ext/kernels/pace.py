"""How fast a kernel sends, by its own clock: it is not too fast when its client is slow."""

from __future__ import annotations

import contextlib
from collections import deque
from datetime import datetime
from typing import Any


class Pace:
    """What a kernel has sent in the latest seconds.

    :param window: so many seconds
    """

    def __init__(self, window: float) -> None:
        self._window = window
        self._sent: deque[tuple[float, int]] = deque()
        self._size = 0

    def add(self, time: float, size: int) -> None:
        """Note a message of so many bytes."""
        self._sent.append((time, size))
        self._size += size
        while self._sent[0][0] <= time - self._window:
            self._size -= self._sent.popleft()[1]

    def reset(self) -> None:
        """Forget all."""
        self._sent.clear()
        self._size = 0

    def is_within(self, messages: float, size: float) -> bool:
        """Tell whether it was no more than so many messages and bytes a second; 0: any number."""
        return (not messages or len(self._sent) <= messages * self._window) and (
            not size or self._size <= size * self._window
        )


def sent_at(date: Any) -> float | None:
    """Return what a header has as its date, in seconds since the epoch; None: it has none."""
    if isinstance(date, str):
        with contextlib.suppress(ValueError):
            date = datetime.fromisoformat(date.replace("Z", "+00:00"))
    return date.timestamp() if isinstance(date, datetime) else None
