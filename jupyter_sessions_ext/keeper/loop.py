"""What the keeper waits for: sockets, zmq's too, and times. Asleep otherwise.

Whatever goes wrong in one callback is logged, and is no other kernel's or client's matter.
"""

from __future__ import annotations

import heapq
import itertools
import math
import selectors
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

import zmq

Callback = Callable[[], object]

PAUSE = 1.0
"""Seconds for which a file is left alone whose callback has failed: it would again, at once."""


class HasFile(Protocol):
    """What has a file descriptor."""

    def fileno(self) -> int:
        """Return it."""


class Timer:
    """A call to come."""

    def __init__(self, callback: Callback) -> None:
        self.callback: Callback | None = callback

    def cancel(self) -> None:
        """Do not call."""
        self.callback = None


class Loop:
    """Calls back until stopped.

    :param log: is told what has failed
    """

    def __init__(self, log: Callable[[str], object]) -> None:
        self.log = log
        self._selector = selectors.DefaultSelector()
        self._paused: dict[int, selectors.SelectorKey] = {}
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._soon: deque[Callback] = deque()
        self._running = False

    def watch(self, file: HasFile | int, callback: Callable[[int], object]) -> None:
        """Call when it can be read: with the events of :mod:`selectors`."""
        self._selector.register(file, selectors.EVENT_READ, callback)

    def watch_writing(self, file: HasFile | int, also: bool) -> None:
        """Call also when it can be written, or no more."""
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if also else 0)
        paused = self._paused.get(_descriptor(file))
        if paused is not None:
            self._paused[paused.fd] = paused._replace(events=events)
            return
        key = self._selector.get_key(file)
        if key.events != events:
            self._selector.modify(file, events, key.data)

    def forget(self, file: HasFile | int) -> None:
        """Do not call any more."""
        if self._paused.pop(_descriptor(file), None) is None:
            self._selector.unregister(file)

    def call_soon(self, callback: Callback) -> None:
        """Call after what is there already."""
        self._soon.append(callback)

    def call_later(self, seconds: float, callback: Callback) -> Timer:
        """Call in so many seconds."""
        timer = Timer(callback)
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._order), timer))
        return timer

    def stop(self) -> None:
        """Return from :meth:`run` soon."""
        self._running = False

    def run(self) -> None:
        """Call back until stopped."""
        self._running = True
        while self._running:
            for key, events in self._selector.select(self._timeout()):
                self._handle(key, events)
            for _ in range(len(self._soon)):
                self.call(self._soon.popleft())
            while self._timers and self._timers[0][0] <= time.monotonic():
                callback = heapq.heappop(self._timers)[2].callback
                if callback is not None:
                    self.call(callback)

    def _handle(self, key: selectors.SelectorKey, events: int) -> None:
        watched = self._selector.get_map().get(key.fd)
        if watched is None or watched.data is not key.data:
            return  # what came before in the same turn has forgotten it
        try:
            key.data(events)
        except Exception:
            self.log(traceback.format_exc())
            self._pause(key)

    def call(self, callback: Callback) -> None:
        """Call now; what goes wrong is logged."""
        try:
            callback()
        except Exception:
            self.log(traceback.format_exc())

    def _pause(self, key: selectors.SelectorKey) -> None:
        """Leave a file alone for a while, unless it was forgotten."""
        watched = self._selector.get_map().get(key.fd)
        if watched is not None and watched.fileobj is key.fileobj:
            self._selector.unregister(key.fileobj)
            self._paused[key.fd] = key
            self.call_later(PAUSE, lambda: self._resume(key.fd))

    def _resume(self, fd: int) -> None:
        key = self._paused.pop(fd, None)
        if key is not None:
            self._selector.register(key.fileobj, key.events, key.data)

    def _timeout(self) -> float | None:
        if self._soon:
            return 0
        while self._timers and self._timers[0][2].callback is None:
            heapq.heappop(self._timers)
        return max(self._timers[0][0] - time.monotonic(), 0) if self._timers else None


def _descriptor(file: HasFile | int) -> int:
    return file if isinstance(file, int) else file.fileno()


class Receiver:
    """Receives from a zmq socket as long as there is something to receive.

    :param receive: is given the messages that are there, so many and so large at most at once
    :param overrun: is given the oldest messages when more bytes wait than may: those that are not
        large, and how many others there are among them
    :param limit: tells how many bytes may wait
    """

    MOST, MOST_BYTES = 500, 1 << 21
    LARGE = 1 << 15
    """Bytes; such a message is not copied out of zmq's memory before it is its turn."""
    TIME = 0.02
    """Seconds for which is taken from the socket, where it is too much, at once."""

    def __init__(
        self,
        loop: Loop,
        socket: zmq.Socket[bytes],
        receive: Callable[[list[list[bytes]]], object],
        overrun: Callable[[list[list[bytes]], int], object] = lambda *_: None,
        limit: Callable[[], float] = lambda: math.inf,
    ) -> None:
        self._loop = loop
        self._receive = receive
        self._overrun = overrun
        self._limit = limit
        self._waiting: deque[tuple[Sequence[bytes | zmq.Frame], int]] = deque()
        self._size = 0
        self._length = 0
        """Bytes of the last message."""
        self._file: int = socket.getsockopt(zmq.FD)  # type: ignore[assignment]
        self._is_due = False
        self.socket = socket
        loop.watch(self._file, lambda _: self.look())
        self.look()

    @property
    def is_behind(self) -> bool:
        """Whether there is more than could be handled yet."""
        return self._is_due

    def find_connected(self) -> bool:
        """Find out whether there is a connection now, of a socket that is ``immediate``."""
        events = int(self.socket.getsockopt(zmq.EVENTS))
        if events & zmq.POLLIN:  # its file does not tell of that again
            self._look_soon()
        return bool(events & zmq.POLLOUT)

    def look(self) -> None:
        """Receive what is there. To be called after each message sent, too.

        The socket's file tells once that something has come, and does not if that was while
        something was sent.
        """
        if self.socket.closed:  # by what was called back before
            return
        is_empty, until = self._take(), time.monotonic() + self.TIME
        while self._size > self._limit():
            self._give_up(self._limit())
            if is_empty or time.monotonic() > until:
                break
            is_empty = self._take()
        messages = self._next()
        if self._waiting or not is_empty:
            self._look_soon()
        if messages:
            self._receive(messages)

    def _take(self) -> bool:
        """Take from the socket, whose queue has no limit; tell whether nothing is left there."""
        most = self._size + 4 * self.MOST_BYTES
        try:
            for _ in range(2 * self.MOST):
                is_small = self._length < self.LARGE
                message = self.socket.recv_multipart(zmq.NOBLOCK, copy=is_small)
                self._length = sum(map(len, message))
                self._waiting.append((message, self._length))
                self._size += self._length
                if self._size > most:
                    break
        except zmq.Again:
            return True
        return False

    def _next(self) -> list[list[bytes]]:
        """Return the messages that wait for longest."""
        messages = list[list[bytes]]()
        size = 0
        while self._waiting and len(messages) < self.MOST and size < self.MOST_BYTES:
            message, length = self._waiting.popleft()
            messages.append(_copied(message))
            size += length
        self._size -= size
        return messages

    def _give_up(self, limit: float) -> None:
        """Let go of the messages that wait for longest, until no more bytes wait than that."""
        small, large = list[list[bytes]](), 0
        while self._size > limit:
            message, length = self._waiting.popleft()
            self._size -= length
            if length < self.LARGE:
                small.append(_copied(message))
            else:
                large += 1
        self._overrun(small, large)

    def _look_soon(self) -> None:
        if not self._is_due:
            self._is_due = True
            self._loop.call_soon(self._look_again)

    def _look_again(self) -> None:
        self._is_due = False
        self.look()

    def drain(self) -> None:
        """Receive all that is there now."""
        while not self.socket.closed and not (self._take() and not self._waiting):
            if messages := self._next():
                self._receive(messages)

    def close(self) -> None:
        """Close the socket. What it was to send is sent, if that is soon."""
        self._loop.forget(self._file)
        self.socket.close()


def _copied(message: Sequence[bytes | zmq.Frame]) -> list[bytes]:
    return [part if isinstance(part, bytes) else part.bytes for part in message]
