"""One kernel: what it sends is recorded, and what clients send is forwarded."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

import zmq

from .client import Client
from .finish import Finisher
from .loop import Loop, Receiver, Timer
from .messages import DELIMITER, Connection, frames_of, identity, is_private
from .process import KernelProcess
from .protocol import Channel
from .ring import Ring
from .splice import Splice, tail_of

NUDGE_INTERVAL = 0.1
"""Seconds between questions to a kernel that has not been heard of; doubled each time, up to 1."""

SPLICE_TIMEOUT = 5.0
"""Seconds after which it is given up that the server has heard what the keeper hears."""

NUDGE_TIMEOUT = 60.0
"""Seconds after which a kernel that was never heard of is sent what clients have for it."""


class Kernel:
    """What is kept of a kernel, and who is connected to it.

    :param changed: is told that something was recorded
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
        spliced: Callable[[Kernel], object] = lambda _: None,
        ended: Callable[[Kernel], object] = lambda _: None,
    ) -> None:
        self.kernel_id = kernel_id
        self.ring = ring
        self.loop = loop
        self.clients: dict[bytes, Client] = {}
        self.connection: Connection | None = None
        self.allowed: frozenset[str] = frozenset()
        """Types of messages that clients may send; empty: all."""
        self._context = context
        self._changed = changed
        self._spliced = spliced
        self._ended = ended
        self.process: KernelProcess | None = None
        self._splice: Splice | None = None
        self._finisher: Finisher | None = None
        self.last = b""
        """Which message was recorded last of those that are for all."""
        self._iopub: Receiver | None = None
        self._is_heard = False
        self._waiting: list[tuple[Client, Channel, Sequence[bytes]]] = []
        self._nudging: _Nudge | None = None

    # ------------------------------------------------------------------ where it is

    def connect(self, connection: Connection, *, is_new: bool, is_busy: bool) -> None:
        """Listen to it.

        :param is_new: its process has just been started: no client was heard by it yet
        :param is_busy: it would not answer a question
        """
        if connection != self.connection:
            self._disconnect()
            self.connection = connection
            socket = self.open_socket(Channel.IOPUB, zmq.SUB)
            socket.subscribe(b"")
            self._iopub = Receiver(self.loop, socket, self._published)
            for client in self.clients.values():
                client.reconnect()
        elif not is_new:
            return
        if is_new:
            for client in self.clients.values():
                client.memo.pending.clear()
        self._is_heard = is_busy
        self._stop_nudging()
        if not is_busy:
            self._nudging = _Nudge(self)

    def open_socket(self, channel: Channel, kind: int, identity: bytes = b"") -> zmq.Socket[bytes]:
        """Return a socket that is connected to a channel."""
        assert self.connection is not None
        socket = self._context.socket(kind)
        socket.linger = 1000
        socket.rcvhwm = socket.sndhwm = 0
        socket.reconnect_ivl, socket.reconnect_ivl_max = 10, 200
        if identity:
            socket.identity = identity
        if self.connection.curve:
            public, secret = zmq.curve_keypair()
            socket.curve_publickey, socket.curve_secretkey = public, secret
            socket.curve_serverkey = self.connection.curve
        socket.connect(self.connection.url(channel))
        return socket

    def _disconnect(self) -> None:
        self._stop_nudging()
        if self._iopub is not None:
            self._iopub.close()
            self._iopub = None

    def _stop_nudging(self) -> None:
        if self._nudging is not None:
            self._nudging.close()
            self._nudging = None

    def follow(self, process: tuple[int, float | None] | None) -> None:
        """Watch its process, if that is known."""
        if self.process is not None:
            self.process.close()
            self.process = None
        if process is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                self.process = KernelProcess(self.loop, *process, lambda: self._ended(self))

    def end(self) -> None:
        """Ask it to end, and see to it that it does."""
        if self.connection is not None:
            socket = self.open_socket(Channel.CONTROL, zmq.DEALER)
            message = self.connection.message("shutdown_request", {"restart": False})
            with contextlib.suppress(zmq.Again):
                socket.send_multipart([DELIMITER, *message], zmq.NOBLOCK)
            socket.close()
        if self.process is not None:
            self.process.end()

    def close(self) -> None:
        """Let go of it."""
        self._disconnect()
        self.follow(None)
        for client in self.clients.values():
            client.close()
        self._waiting.clear()

    # ------------------------------------------------------------------ what it sends

    def finish_pending(self) -> None:
        """See to it that what clients of another keeper have asked is replied to."""
        assert self.connection is not None
        finisher = Finisher(self.loop, [*self.clients.values()], self.connection.sign)
        for record in tail_of(self.ring):
            if record.channel is Channel.IOPUB:
                finisher.see(record.frames)
        self._finisher = finisher

    def splice(self) -> None:
        """Have the server feed what it has heard since another keeper's ring ends."""
        self._splice = Splice(self.ring)

    def _published(self, messages: list[list[bytes]]) -> None:
        self.hear()
        found: Sequence[Sequence[bytes]] = [
            frames
            for message in messages
            if (frames := frames_of(message)) and not is_private(frames)
        ]
        if self._splice is not None:
            waits = self._splice.is_waiting
            found = self._splice.hear(found)
            if self._splice.is_waiting and not waits:
                self.loop.call_later(SPLICE_TIMEOUT, self._give_up)
        self._record_published(found)

    def feed(self, frames: Sequence[bytes]) -> None:
        """Take a message that the server has heard."""
        if self._splice is not None:
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

    def record(self, messages: list[tuple[Channel, bytes, Sequence[bytes]]]) -> None:
        """Keep messages, and send them to whoever is up to date."""
        data = self.ring.append(messages)
        if data:
            for client in self.clients.values():
                if client.stream is not None:
                    client.stream.appended(data)
            self._changed(self)

    # ------------------------------------------------------------------ what is sent to it

    def hear(self) -> None:
        """Let clients' messages through: what it publishes for them is recorded from here on."""
        if not self._is_heard:
            self._is_heard = True
            self._stop_nudging()
            waiting, self._waiting = self._waiting, []
            for client, channel, frames in waiting:
                client.forward(channel, frames)

    def send(self, client: Client, channel: Channel, frames: Sequence[bytes]) -> None:
        """Forward a client's message, as soon as what comes of it is recorded.

        :param frames: with the delimiter and a signature
        """
        if self._is_heard:
            client.forward(channel, frames)
        else:
            self._waiting.append((client, channel, frames))


class _Nudge:
    """Asks a kernel, which publishes that it does, until the subscription shows it."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._sockets = [
            Receiver(kernel.loop, kernel.open_socket(channel, zmq.DEALER), lambda _: None)
            for channel in (Channel.SHELL, Channel.CONTROL)
        ]
        for receiver in self._sockets:
            receiver.socket.linger = 0
        self._timer: Timer | None = None
        self._left = NUDGE_TIMEOUT
        self._ask(NUDGE_INTERVAL)

    def _ask(self, interval: float) -> None:
        assert self._kernel.connection is not None
        for receiver in self._sockets:
            message = self._kernel.connection.message("kernel_info_request", {})
            with contextlib.suppress(zmq.Again):
                receiver.socket.send_multipart([DELIMITER, *message], zmq.NOBLOCK)
            receiver.look()
        self._left -= interval
        again = self._kernel.hear if self._left < 0 else lambda: self._ask(min(2 * interval, 1))
        self._timer = self._kernel.loop.call_later(interval, again)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for receiver in self._sockets:
            receiver.close()
