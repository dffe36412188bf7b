"""One kernel: what it sends is recorded, and what clients send is forwarded."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import zmq

from .client import AGAIN_INTERVAL, REPLYING, Client
from .endpoint import Endpoint, Monitor, is_shortage
from .finish import Finisher, IdleWatch
from .log_file import shorten
from .loop import Loop, Receiver
from .memo import Memo
from .messages import (
    CONTENT,
    DELIMITER,
    HEADER,
    PARENT,
    Connection,
    frames_of,
    identity,
    is_private,
    message_id,
)
from .process import KernelProcess
from .protocol import Channel
from .ring import Ring
from .splice import Splice, tail_of

SPLICE_TIMEOUT = 5.0
"""Seconds after which it is given up that the server has heard what the keeper hears."""

LEAST_WAITING = 16 << 20
"""Bytes that may always wait to be recorded."""


class KernelFiles(NamedTuple):
    """A kernel's files, which a server has made."""

    connection: str | None = None
    log: str | None = None


class Kernel:
    """What is kept of a kernel, and who is connected to it.

    :param changed: is told that something was recorded
    :param forwarded: is told that something was forwarded
    :param spliced: is told that the server need not feed any more
    :param ended: is told that its process has ended
    """

    def __init__(
        self,
        kernel_id: str,
        loop: Loop,
        context: zmq.Context[zmq.Socket[bytes]],
        ring: Ring,
        changed: Callable[[Kernel], object] = lambda _: None,
        forwarded: Callable[[], object] = lambda: None,
        spliced: Callable[[Kernel], object] = lambda _: None,
        ended: Callable[[Kernel], object] = lambda _: None,
    ) -> None:
        self.kernel_id = kernel_id
        self.ring = ring
        self.loop = loop
        self.clients: dict[bytes, Client] = {}
        self.endpoint = Endpoint(loop, context)
        self._allowed: frozenset[str] = frozenset()
        self._changed = changed
        self._forwarded = forwarded
        self._spliced = spliced
        self._ended = ended
        self.files = KernelFiles()
        self.process: KernelProcess | None = None
        self.has_ended = False
        """Whether its process is known to have ended."""
        self._splice: Splice | None = None
        self._finisher: Finisher | None = None
        self._idle_watch = IdleWatch(
            loop,
            self.endpoint.ask,
            self._record_published,
            self._sign,
            lambda: self._is_behind,
            self._hear_again,
        )
        self.is_idle = False
        """Whether it was, at last."""
        self.last = b""
        """Which message was recorded last of those that are for all."""
        self._iopub: Receiver | None = None
        self._monitor: Monitor | None = None
        self._is_closed = False

    # ------------------------------------------------------------------ where it is

    def connect(self, connection: Connection, *, is_new: bool, is_busy: bool) -> None:
        """Listen to it.

        :param is_new: its process has just been started: no client was heard by it yet
        :param is_busy: it would not answer a question
        """
        endpoint = self.endpoint
        if is_new:
            for client in self.clients.values():
                client.begin_anew()
        is_elsewhere = connection != endpoint.connection
        if not is_elsewhere and not is_new:
            return
        if is_elsewhere:
            self._disconnect()
            endpoint.connection = connection
        self._subscribe()
        if is_elsewhere:
            for client in self.clients.values():
                client.reconnect()
        if not self.has_ended:
            endpoint.listen(is_busy=is_busy)

    def _subscribe(self) -> None:
        """Hear it on a new connection; what came on the one before is taken."""
        if self._iopub is not None:
            self._iopub.drain()
            self._unsubscribe()
        try:
            socket = self.endpoint.open_socket(Channel.IOPUB, zmq.SUB)
        except (OSError, zmq.ZMQError) as error:
            if not is_shortage(error):
                raise
            self.loop.call_later(AGAIN_INTERVAL, self._subscribe_again)
            return
        socket.subscribe(b"")
        with contextlib.suppress(OSError, zmq.ZMQError):  # a question will show that it is deaf
            self._monitor = Monitor(self.loop, socket, self._lost)
        self._iopub = Receiver(
            self.loop, socket, self._published, self._overrun, self._most_waiting
        )

    def _subscribe_again(self) -> None:
        if self.endpoint.connection is not None and not self._is_closed:
            self._subscribe()

    def _unsubscribe(self) -> None:
        if self._monitor is not None:
            self._monitor.close()
            self._monitor = None
        if self._iopub is not None:
            self._iopub.close()
            self._iopub = None

    def _lost(self) -> None:
        """Be connected again where zmq has given up, as it does when there is no memory."""
        if not self.has_ended:
            self._subscribe()
            self.endpoint.listen_again(is_busy=not self.is_idle)

    def _hear_again(self) -> None:
        """Be connected again: it has answered a question, and nothing of that was heard."""
        if self.is_connected and not self.has_ended:
            self._subscribe()
            self.endpoint.listen_again(is_busy=False)

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection on which it would be heard."""
        return self._iopub is not None

    def _disconnect(self) -> None:
        self.endpoint.close()
        self._unsubscribe()

    def follow(self, process: tuple[int, float | None] | None) -> None:
        """Watch its process, if that is known."""
        self.has_ended = False
        if self.process is not None:
            self.process.close()
            self.process = None
        if process is not None:
            try:
                self.process = KernelProcess(self.loop, *process, self._process_ended)
            except ProcessLookupError:  # it was gone before it was made known here
                self._process_ended()

    def _process_ended(self) -> None:
        self.has_ended = True
        self.endpoint.lose()
        self._ended(self)

    def end(self) -> None:
        """Ask it to end, and see to it that it does."""
        connection = self.endpoint.connection
        if connection is not None:
            socket = self.endpoint.open_socket(Channel.CONTROL, zmq.DEALER)
            message = connection.message("shutdown_request", {"restart": False})
            with contextlib.suppress(zmq.Again):
                socket.send_multipart([DELIMITER, *message], zmq.NOBLOCK)
            socket.close()
        if self.process is not None:
            self.process.end()

    def remove_connection_file(self) -> None:
        """Remove the file with the key of a kernel that has ended, if it is that kernel's."""
        path, connection = self.files.connection, self.endpoint.connection
        if path is None or connection is None:
            return
        with contextlib.suppress(OSError, ValueError, AttributeError, RecursionError):
            with open(path, "rb") as file:
                key = json.load(file).get("key")
            if key == connection.key.decode():
                os.unlink(path)

    def shorten_log(self) -> None:
        """Shorten its log, if it is long."""
        if self.files.log is not None:
            with contextlib.suppress(OSError):
                shorten(Path(self.files.log))

    def close(self) -> None:
        """Let go of it."""
        self._is_closed = True
        self._disconnect()
        self.follow(None)
        for client in self.clients.values():
            client.close()

    def allow(self, types: Iterable[str]) -> None:
        """Let clients send messages of these types only; of none: of all."""
        self._allowed = frozenset(types)
        for client in self.clients.values():
            client.allowed = self._allowed

    def client(self, memo: Memo) -> Client:
        """Return one that is known from now on."""
        client = self.clients[memo.client] = Client(
            self.endpoint, memo, self._record_replies, self._forwarded
        )
        client.allowed = self._allowed
        return client

    # ------------------------------------------------------------------ what it sends

    def finish_pending(self) -> None:
        """See to it that what clients of another keeper have asked is replied to."""
        tail = [*tail_of(self.ring)]
        for record in tail:  # a keeper may end between a reply and its note of it
            if record.channel in REPLYING:
                self._forget_pending(message_id(record.frames[PARENT]))
        finisher = Finisher(self.loop, [*self.clients.values()], self._sign)
        for record in tail:
            if record.channel is Channel.IOPUB:
                finisher.see(record.frames)
        self._finisher = finisher
        if begun := finisher.begun:
            self.endpoint.ask(lambda: finisher.end(begun))

    def _forget_pending(self, asked: str | None) -> None:
        for client in self.clients.values():
            client.memo.pending.pop(asked or "", None)

    @property
    def is_fed(self) -> bool:
        """Whether the server is to feed what it has heard."""
        return self._splice is not None

    def splice(self) -> None:
        """Have the server feed what it has heard since another keeper's ring ends."""
        self._splice = Splice(self.ring)

    def _published(self, messages: list[list[bytes]]) -> None:
        found = heard = self._hear(messages)
        if self._splice is not None:
            waits = self._splice.is_waiting
            found = self._splice.hear(found)
            if self._splice.is_waiting and not waits:
                self.loop.call_later(SPLICE_TIMEOUT, self._give_up)
        self._record_published(found)
        for frames in heard:  # after that, for clients wait for it
            self._idle_watch.publish(frames)

    def _hear(self, messages: list[list[bytes]]) -> list[Sequence[bytes]]:
        """Return what is of any interest to clients."""
        if not self.has_ended:  # else it is its last words
            self.endpoint.hear()
        found: list[Sequence[bytes]] = []
        for message in messages:
            frames = frames_of(message)
            if frames and not is_private(frames):
                found.append(frames)
                if b'"status"' in frames[HEADER]:
                    self.is_idle = b'"idle"' in frames[CONTENT]
        return found

    def _most_waiting(self) -> float:
        """Return how many bytes may wait to be recorded: what is kept, what came first would go.

        While what the server has heard is put in between, nothing of it must be missing.
        """
        return math.inf if self.is_fed else max(self.ring.limit, LEAST_WAITING)

    def _overrun(self, small: list[list[bytes]], large: int) -> None:
        """Drop what would be dropped as soon as what came after it is recorded."""
        heard = self._hear(small)
        self.ring.skip([(Channel.IOPUB, b"", frames) for frames in heard], large)
        for frames in heard:
            self._idle_watch.publish(frames)
        for client in self.clients.values():
            if client.stream is not None:
                client.stream.pump()

    @property
    def _is_behind(self) -> bool:
        return self._iopub is not None and self._iopub.is_behind

    def feed(self, frames: Sequence[bytes]) -> None:
        """Take a message that the server has heard."""
        if self._splice is not None:
            self._idle_watch.publish(frames)
            self._record_published(self._splice.feed([frames]))

    def _give_up(self) -> None:
        if self._splice is not None:
            self._record_published(self._splice.give_up())

    def _record_published(self, found: Sequence[Sequence[bytes]]) -> None:
        if self._splice is not None and self._splice.has_met:
            self._spliced(self)
            if self._splice.is_over:
                self._splice = None
        if found:
            self.last = identity(found[-1])
            if self._finisher is not None:
                for frames in found:
                    self._finisher.see(frames)
            self.record([(Channel.IOPUB, b"", frames) for frames in found])

    def _sign(self, parts: Sequence[bytes]) -> list[bytes]:
        assert self.endpoint.connection is not None
        return self.endpoint.connection.sign(parts)

    def _record_replies(self, messages: list[tuple[Channel, bytes, Sequence[bytes]]]) -> None:
        self.record(messages)
        for channel, _, frames in messages:
            if channel is Channel.SHELL:
                self._idle_watch.reply(frames)

    def record(self, messages: list[tuple[Channel, bytes, Sequence[bytes]]]) -> None:
        """Keep messages, and send them to whoever is up to date."""
        data = self.ring.append(messages)
        if data:
            for client in self.clients.values():
                if client.stream is not None:
                    client.stream.appended(data)
            self._changed(self)
