"""Where a kernel is, and whether it is heard there."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import zmq

from .loop import Loop, Receiver, Timer
from .messages import DELIMITER, Connection
from .protocol import Channel

NUDGE_INTERVAL = 0.1
"""Seconds between questions to a kernel that has not been heard of; doubled each time, up to 1."""

NUDGE_TIMEOUT = 60.0
"""Seconds after which a kernel that was never heard of is sent what clients have for it."""


class Endpoint:
    """A kernel's channels.

    What clients send waits until the kernel is heard: nothing that comes of it may be lost.
    """

    def __init__(self, loop: Loop, context: zmq.Context[zmq.Socket[bytes]]) -> None:
        self.loop = loop
        self.connection: Connection | None = None
        self._context = context
        self._is_heard = False
        self._waiting: list[Callable[[], object]] = []
        self._nudge: _Nudge | None = None

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
            socket.curve_publickey, socket.curve_secretkey = zmq.curve_keypair()
            socket.curve_serverkey = self.connection.curve
        socket.connect(self.connection.url(channel))
        return socket

    def listen(self, *, is_busy: bool) -> None:
        """Ask the kernel until it is heard.

        :param is_busy: it would not answer, and is taken as heard
        """
        self.close()
        self._is_heard = is_busy
        if not is_busy:
            self._nudge = _Nudge(self)

    def hear(self) -> None:
        """Let through what waits."""
        if not self._is_heard:
            self._is_heard = True
            self.close()
            waiting, self._waiting = self._waiting, []
            for forward in waiting:
                self.loop.call(forward)

    def lose(self) -> None:
        """Let nothing through until a kernel is heard again: this one has ended."""
        self.close()
        self._is_heard = False

    def when_heard(self, forward: Callable[[], object]) -> None:
        """Forward a client's message, as soon as what comes of it is heard."""
        if self._is_heard:
            forward()
        else:
            self._waiting.append(forward)

    def ask(self, answered: Callable[[], object]) -> None:
        """Put a question to the kernel on its shell channel, and call when it was answered."""
        if self.connection is None:
            return
        socket = self.open_socket(Channel.SHELL, zmq.DEALER)
        socket.linger = 0

        def received(_: list[list[bytes]]) -> None:
            timer.cancel()
            receiver.close()
            answered()

        receiver = Receiver(self.loop, socket, received)
        timer = self.loop.call_later(NUDGE_TIMEOUT, receiver.close)
        message = self.connection.message("kernel_info_request", {})
        with contextlib.suppress(zmq.Again):
            socket.send_multipart([DELIMITER, *message], zmq.NOBLOCK)
        receiver.look()

    def close(self) -> None:
        """Ask no more."""
        if self._nudge is not None:
            self._nudge.close()
            self._nudge = None


class _Nudge:
    """Asks a kernel, which publishes that it does, until the subscription shows it."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._receivers = [
            Receiver(endpoint.loop, endpoint.open_socket(channel, zmq.DEALER), lambda _: None)
            for channel in (Channel.SHELL, Channel.CONTROL)
        ]
        for receiver in self._receivers:
            receiver.socket.linger = 0
        self._timer: Timer | None = None
        self._left = NUDGE_TIMEOUT
        self._ask(NUDGE_INTERVAL)

    def _ask(self, interval: float) -> None:
        assert self._endpoint.connection is not None
        for receiver in self._receivers:
            message = self._endpoint.connection.message("kernel_info_request", {})
            with contextlib.suppress(zmq.Again):
                receiver.socket.send_multipart([DELIMITER, *message], zmq.NOBLOCK)
            receiver.look()
        self._left -= interval
        again = self._endpoint.hear if self._left < 0 else lambda: self._ask(min(2 * interval, 1))
        self._timer = self._endpoint.loop.call_later(interval, again)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for receiver in self._receivers:
            receiver.close()
