"""The server's end of the connection with a keeper, on the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import socket
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from ..errors import KeeperError, KeeperGoneError
from .protocol import Kind, Packet, ProtocolError, Unpacker, pack_json

_SIZE = 1 << 16
"""Bytes that are received at once; of more, memory would be mapped and unmapped each time."""
_Answered = Callable[[dict[str, Any]], object]


class Feed(Protocol):
    """A client's connection, as its stream needs it."""

    def received(self, records: bytes) -> None:
        """Take records that the client has not got."""

    def missed(self, count: int) -> None:
        """Take note that so many messages were dropped before they could be sent."""

    def forwarded(self, count: int) -> None:
        """Take note that so many more of the client's messages are with the kernel."""

    def lost(self) -> None:
        """Attach again: the keeper that it was attached to is gone."""


class ServerLink:
    """A connection.

    :param feeds: who is given the records of which stream
    :param noted: is given what the keeper says unasked
    :param ended: is called when it is over
    """

    def __init__(
        self,
        log: logging.Logger | Any,
        connection: socket.socket,
        feeds: Mapping[int, Feed],
        noted: Callable[[dict[str, Any]], object],
        ended: Callable[[ServerLink, str], object],
    ) -> None:
        self._log = log
        self._socket = connection
        self._feeds = feeds
        self._noted = noted
        self._ended = ended
        self._unpacker = Unpacker()
        self._unsent: deque[tuple[memoryview, Sequence[int]]] = deque()
        self._numbers = itertools.count(1)
        self._calls: dict[int, tuple[asyncio.Future[dict[str, Any]], _Answered | None]] = {}
        self._loop = asyncio.get_running_loop()
        self.is_open = True
        self.received = 0
        """Bytes, since the beginning."""
        connection.setblocking(False)
        self._loop.add_reader(connection, self._read)

    def call(
        self,
        what: str,
        files: Sequence[int] = (),
        answered: _Answered | None = None,
        /,
        **more: Any,
    ) -> asyncio.Future[dict[str, Any]]:
        """Ask the keeper; the answer is a KeeperError if it refuses, or is gone.

        :param files: descriptors that it gets duplicates of; they are closed when they are sent
        :param answered: is called with the answer before anything else is received
        """
        number = next(self._numbers)
        answer: asyncio.Future[dict[str, Any]] = self._loop.create_future()
        if not self.is_open:
            _close_all(files)
            _gone(answer)
            return answer
        self._calls[number] = answer, answered
        self.send(pack_json(Kind.CALL, number, op=what, **more), files)
        return answer

    def send(self, packet: bytes, files: Sequence[int] = ()) -> None:
        """Send a packet, now or as soon as it can be.

        :param files: descriptors, which are closed then
        """
        if not self.is_open:
            _close_all(files)
            return
        self._unsent.append((memoryview(packet), files))
        if len(self._unsent) == 1:
            self._flush()

    def _flush(self) -> None:
        try:
            while self._unsent:
                data, files = self._unsent[0]
                sent = socket.send_fds(self._socket, [data], list(files)) if files else (
                    self._socket.send(data)
                )  # fmt: skip
                _close_all(files)
                if sent < len(data):
                    self._unsent[0] = (data[sent:], ())
                else:
                    self._unsent.popleft()
        except BlockingIOError:
            self._loop.add_writer(self._socket, self._writable)
        except OSError:
            self._give_up_unsent()
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_WR)  # reading tells that it is over

    def _writable(self) -> None:
        self._flush()
        if self.is_open and not self._unsent:
            self._loop.remove_writer(self._socket)

    def _read(self) -> None:
        try:
            data = self._socket.recv(_SIZE)
        except BlockingIOError:
            return
        except OSError as error:
            self._end(str(error))
            return
        self.received += len(data)
        if not data:
            self._end("it has ended")
            return
        try:
            for packet in self._unpacker.feed(data):
                self._take_safely(packet)
        except ProtocolError as error:
            self._end(str(error))

    def _take_safely(self, packet: Packet) -> None:
        """Take a packet; what is wrong with it, or whom it is for, is not the others' matter."""
        try:
            self._take(packet)
        except ProtocolError:
            raise
        except Exception:
            self._log.exception("A packet of the keeper cannot be used")

    def _take(self, packet: Packet) -> None:
        if packet.kind is Kind.STREAM:
            feed = self._feeds.get(packet.number)
            if feed is not None:
                self._pass_on(feed, packet.frames[0])
        elif packet.kind is Kind.ANSWER:
            call = self._calls.pop(packet.number, None)
            if call is not None:
                self._answer(packet.body, *call)
        elif packet.kind is Kind.NOTE:
            self._noted(packet.body)

    def _pass_on(self, feed: Feed, records: bytes) -> None:
        try:
            feed.received(records)
        except ProtocolError as error:  # so it is in the ring's file
            self._log.error("What the keeper has of a kernel cannot be read: %s", error)

    def _answer(
        self,
        said: dict[str, Any],
        answer: asyncio.Future[dict[str, Any]],
        answered: _Answered | None,
    ) -> None:
        error = said.get("error")
        if error is None and answered is not None:
            answered(said)
        if not answer.done():
            if error is None:
                answer.set_result(said)
            else:
                answer.set_exception(KeeperError(error))

    def _end(self, reason: str) -> None:
        if self.is_open:
            self.close()
            self._ended(self, reason)

    def close(self) -> None:
        """End it."""
        if not self.is_open:
            return
        self.is_open = False
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._socket.close()
        self._give_up_unsent()
        for answer, _ in self._calls.values():
            if not answer.done():
                _gone(answer)
        self._calls.clear()

    def _give_up_unsent(self) -> None:
        for _, files in self._unsent:
            _close_all(files)
        self._unsent.clear()


def _gone(answer: asyncio.Future[dict[str, Any]]) -> None:
    answer.set_exception(KeeperGoneError("the keeper is gone"))
    answer.exception()  # whoever waits has it; if nobody does, nothing is lost


def _close_all(files: Sequence[int]) -> None:
    for file in files:
        os.close(file)
