"""What the server has heard of a kernel and the keeper may not have: for the next keeper."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from .messages import identity


class Backlog:
    """The latest messages of a kernel on iopub, without those that the keeper has recorded.

    :param limit: bytes
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._size = 0
        self._messages: deque[list[bytes]] = deque()
        self._ahead: dict[bytes, None] = {}
        """What the keeper has recorded and is not heard here yet."""

    def add(self, frames: list[bytes]) -> None:
        """Add a message."""
        if self._ahead and (name := identity(frames)) in self._ahead:
            while next(iter(self._ahead)) != name:
                del self._ahead[next(iter(self._ahead))]
            del self._ahead[name]
            self._messages.clear()  # all of them came before
            self._size = 0
            return
        self._messages.append(frames)
        self._size += sum(map(len, frames))
        while self._size > self._limit and len(self._messages) > 1:
            self._size -= sum(map(len, self._messages.popleft()))

    def recorded(self, last: bytes) -> None:
        """Drop what the keeper has: up to that message, which may be yet to come."""
        for count, frames in enumerate(self._messages, 1):
            if identity(frames) == last:
                for _ in range(count):
                    self._size -= sum(map(len, self._messages.popleft()))
                return
        self._ahead[last] = None

    def messages(self) -> list[Sequence[bytes]]:
        """Return what is left."""
        return [*self._messages]
