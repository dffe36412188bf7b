"""What the server has heard of a kernel and the keeper may not have: for the next keeper."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from .messages import frames_of, identity


class Backlog:
    """The latest messages of a kernel on iopub, without those that the keeper has recorded.

    :param limit: bytes
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._size = 0
        self._messages: deque[list[bytes]] = deque()
        self._recorded = b""

    def add(self, message: list[bytes]) -> list[bytes]:
        """Add a message as it came, and return its frames; empty if it is none."""
        frames = frames_of(message)
        if not frames:
            return frames
        if self._recorded and identity(frames) == self._recorded:
            # The keeper was ahead: it has had this, and all before it.
            self._clear()
            return frames
        self._messages.append(frames)
        self._size += sum(map(len, frames))
        while self._size > self._limit and len(self._messages) > 1:
            self._size -= sum(map(len, self._messages.popleft()))
        return frames

    def recorded(self, last: bytes) -> None:
        """Drop what the keeper has: up to that message, which may be yet to come."""
        for count, frames in enumerate(self._messages, 1):
            if identity(frames) == last:
                for _ in range(count):
                    self._size -= sum(map(len, self._messages.popleft()))
                self._recorded = b""
                return
        self._recorded = last

    def _clear(self) -> None:
        self._messages.clear()
        self._size = 0
        self._recorded = b""

    def messages(self) -> list[Sequence[bytes]]:
        """Return what is left."""
        return [*self._messages]
