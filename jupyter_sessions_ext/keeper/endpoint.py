"""Where a kernel is, and whether it is heard there."""

from __future__ import annotations

import contextlib
import errno
from collections import deque
from collections.abc import Callable

import zmq
from zmq.utils.monitor import parse_monitor_message

from .loop import Loop, Receiver, Timer
from .messages import DELIMITER, Connection
from .protocol import Channel

NUDGE_INTERVAL = 0.1
"""Seconds between questions to a kernel that has not been heard of; doubled each time, up to 1."""

LOST_TIMEOUT = 1.0
"""Seconds in which zmq begins to connect again, if it does."""

_ENDS = frozenset({
    zmq.Event.DISCONNECTED, zmq.Event.HANDSHAKE_FAILED_NO_DETAIL,
    zmq.Event.HANDSHAKE_FAILED_PROTOCOL, zmq.Event.HANDSHAKE_FAILED_AUTH,
})  # fmt: skip

NUDGE_TIMEOUT = 60.0
"""Seconds after which a kernel that was never heard of is sent what clients have for it."""


_SHORTAGES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})


def is_shortage(error: OSError | zmq.ZMQError) -> bool:
    """Tell whether what failed may be done later: there are no descriptors, or no memory now."""
    return error.errno in _SHORTAGES


class Endpoint:
    """A kernel's channels.

    What clients send waits until the kernel is heard: nothing that comes of it may be lost.
    """

    def __init__(self, loop: Loop, context: zmq.Context[zmq.Socket[bytes]]) -> None:
        self.loop = loop
        self.connection: Connection | None = None
        self._context = context
        self.is_heard = False
        self.asks_nothing = False
        """Whether there is nobody for questions and answers where the kernel should be."""
        self._waiting: list[Callable[[], object]] = []
        self._nudge: _Nudge | None = None
        self._asker: Receiver | None = None
        self._asked: deque[Callable[[], object]] = deque()

    def open_socket(self, channel: Channel, kind: int, identity: bytes = b"") -> zmq.Socket[bytes]:
        """Return a socket that is being connected to a channel.

        That for questions takes nothing before it is: it can be asked whether it is.
        """
        assert self.connection is not None
        socket = self._context.socket(kind)
        socket.linger = 1000
        socket.rcvhwm = socket.sndhwm = 0
        socket.reconnect_ivl, socket.reconnect_ivl_max = 10, 200
        if identity:
            socket.identity = identity
        if channel is Channel.STDIN:
            socket.immediate = 1
        try:
            if self.connection.curve:
                socket.curve_publickey, socket.curve_secretkey = zmq.curve_keypair()
                socket.curve_serverkey = self.connection.curve
            socket.connect(self.connection.url(channel))
        except BaseException:
            socket.close()
            raise
        return socket

    def listen(self, *, is_busy: bool) -> None:
        """Ask the kernel until it is heard.

        :param is_busy: it would not answer, and is taken as heard
        """
        self.close()
        self.asks_nothing = False
        self.is_heard = is_busy
        if not is_busy:
            self._nudge = _Nudge(self)

    def listen_again(self, *, is_busy: bool) -> None:
        """Ask the kernel until it is heard on a new connection; who has asked it is yet to hear.

        :param is_busy: it would not answer, and is heard as it was
        """
        if not is_busy:
            self.is_heard = False
            if self._nudge is None:
                self._nudge = _Nudge(self)

    def hear(self) -> None:
        """Let through what waits."""
        if not self.is_heard:
            self.is_heard = True
            self._nudge_no_more()
            waiting, self._waiting = self._waiting, []
            for forward in waiting:
                self.loop.call(forward)

    def lose(self) -> None:
        """Let nothing through until a kernel is heard again: this one has ended."""
        self.close()
        self.is_heard = False

    def when_heard(self, forward: Callable[[], object]) -> None:
        """Forward a client's message, as soon as what comes of it is heard."""
        if self.is_heard:
            forward()
        else:
            self._waiting.append(forward)

    def ask(self, answered: Callable[[], object]) -> None:
        """Put a question to the kernel on its shell channel, and call when it was answered.

        That may be long after: it waits until what was sent before has ended.
        """
        if self.connection is None:
            return
        if self._asker is None:
            socket = self.open_socket(Channel.SHELL, zmq.DEALER)
            socket.linger = 0
            self._asker = Receiver(self.loop, socket, self._answered)
        self._asked.append(answered)
        message = self.connection.message("kernel_info_request", {})
        with contextlib.suppress(zmq.Again):
            self._asker.socket.send_multipart([DELIMITER, *message], zmq.NOBLOCK)
        self._asker.look()

    def _answered(self, answers: list[list[bytes]]) -> None:
        """Call who asked: a kernel answers in order."""
        asked = [self._asked.popleft() for _ in answers if self._asked]
        if not self._asked:
            self._ask_no_more()
        for answered in asked:
            answered()

    def _ask_no_more(self) -> None:
        self._asked.clear()
        if self._asker is not None:
            self._asker.close()
            self._asker = None

    def close(self) -> None:
        """Let go of the kernel."""
        self._nudge_no_more()
        self._ask_no_more()

    def _nudge_no_more(self) -> None:
        if self._nudge is not None:
            self._nudge.close()
            self._nudge = None


class Monitor:
    """Tells when a connection has ended that zmq does not make again.

    It tries to connect again and again, and tells each time; but not where it could not read what
    came, as without memory, or from what is no kernel: then it is silent.

    :param lost: is called then
    """

    def __init__(self, loop: Loop, socket: zmq.Socket[bytes], lost: Callable[[], object]) -> None:
        self._loop = loop
        self._lost = lost
        self._socket = socket
        self._timer: Timer | None = None
        self._receiver = Receiver(loop, socket.get_monitor_socket(), self._told)

    def _told(self, messages: list[list[bytes]]) -> None:
        last = parse_monitor_message(messages[-1])["event"]
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if last in _ENDS:
            self._timer = self._loop.call_later(LOST_TIMEOUT, self._lost)

    def close(self) -> None:
        """Tell nothing more."""
        if self._timer is not None:
            self._timer.cancel()
        self._socket.disable_monitor()
        self._receiver.close()


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
