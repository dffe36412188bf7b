"""What a kernel publishes is heard by the server too: in batches, for clients do not wait for it.

They get it from the keeper. What is heard here tells whether a kernel is busy, and goes to the
keeper's successor should it be killed. To be woken for each message took a third of the time that
the server needs for a cell.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import zmq
from tornado.ioloop import IOLoop

from ..keeper.messages import CONTENT, DELIMITER, HEADER, PARENT, frames_of, is_private
from ..models import now

INTERVAL = 0.01
"""Seconds after which what has come is heard, unless it is asked for before."""

_AT_ONCE = 1000
"""Messages after which others have their turn."""

_RECENT = 64
"""States of a kernel that are known to have been heard."""


class Listener:
    """Hears what comes on the stream by which jupyter_server watches a kernel's activity.

    :param heard: is given each message
    """

    def __init__(self, mapping: Any, kernel: Any, heard: Callable[[list[bytes]], object]) -> None:
        stream = kernel._activity_stream
        self._mapping = mapping
        self._kernel = kernel
        self._heard = heard
        self._kernel_id = kernel.kernel_id
        self._record_activity = stream._recv_callback
        self._socket = stream.socket
        self._loop: IOLoop = stream.io_loop
        self._timer: object | None = None
        self._recent: deque[bytes] = deque(maxlen=_RECENT)
        self._shown: bytes | None = None
        # The stream closes the socket when that is due, and would be woken for each message.
        stream.stop_on_recv()
        self._loop.remove_handler(self._socket)
        self._loop.add_handler(self._socket, self._wait, IOLoop.READ)
        self._wait()

    def _wait(self, *_: object) -> None:
        if self._timer is None and not self._socket.closed:
            self._loop.update_handler(self._socket, 0)
            self._timer = self._loop.call_later(INTERVAL, self.hear)

    def shown(self, header: bytes) -> None:
        """Know of a message with the kernel's state that a client got just now."""
        self._shown = header

    @property
    def is_behind(self) -> bool:
        """Tell whether a client knows of the kernel's state what was not heard here yet."""
        return self._shown is not None and self._shown not in self._recent

    def give_up(self) -> None:
        """Expect it no more: it was lost on its way here."""
        self._shown = None

    def hear(self) -> None:
        """Hear what has come: also what the loop had no time yet to be woken for."""
        if self._timer is not None:
            self._loop.remove_timeout(self._timer)
            self._timer = None
        if self._socket.closed:
            return
        count = self._take(islice(self._messages(), _AT_ONCE))
        if count < _AT_ONCE:
            self._loop.update_handler(self._socket, IOLoop.READ)
        else:
            self._timer = self._loop.call_later(0, self.hear)

    def _messages(self) -> Iterator[list[bytes]]:
        """Yield what there is, one by one: many large ones at once would be too much."""
        try:
            while True:
                yield self._socket.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            return

    def _take(self, messages: Iterator[list[bytes]]) -> int:
        kernel, count, is_active = self._kernel, 0, False
        begun: list[bytes] | None = None
        for count, message in enumerate(messages, 1):  # noqa: B007 - how many there were
            frames = frames_of(message)
            if not frames or is_private(frames):  # the keeper's questions are no activity
                continue
            self._safely(self._heard, frames)
            if b'"status"' in frames[HEADER]:
                self._recent.append(frames[HEADER])
                # That a cell has begun is of no interest any more when it has ended.
                if begun is not None and begun[PARENT] != frames[PARENT]:
                    self._record(begun)
                begun = frames if self._begins_cell(frames) else None
                if begun is None:
                    self._record(frames)
            elif begun is not None or kernel.execution_state == "busy":
                is_active = True  # any other message is activity then, and nothing else
            else:
                self._record(frames)
        if begun is not None:
            self._record(begun)
        if is_active:
            self._mapping.last_kernel_activity = kernel.last_activity = now()
        return count

    def _begins_cell(self, frames: list[bytes]) -> bool:
        return (
            b'"busy"' in frames[CONTENT]
            and b'"execute_request"' in frames[PARENT]
            and self._mapping.track_message_type("execute_request")
        )

    def _record(self, frames: list[bytes]) -> None:
        self._safely(self._record_activity, [DELIMITER, *frames])

    def _safely(self, take: Callable[[list[bytes]], object], frames: list[bytes]) -> None:
        """Take a message; what is wrong with it is logged: those that follow are heard."""
        try:
            take(frames)
        except Exception:
            self._kernel.log.exception("A message of kernel %s is no activity", self._kernel_id)
