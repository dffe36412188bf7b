"""One client of a kernel: a browser's tab, which may go and come back under its session id."""

from __future__ import annotations

import contextlib
import re
import sys
import time
import traceback
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import NamedTuple

import zmq

from .delivery import Delivery
from .endpoint import Endpoint, is_shortage
from .loop import Loop, Receiver, Timer
from .memo import MOST_PENDING, Memo
from .messages import (
    CONTENT,
    DELIMITER,
    HEADER,
    PARENT,
    frames_of,
    id_and_type,
    message_id,
    message_type,
    remember,
)
from .peer import Peer
from .protocol import Channel
from .stream import Stream
from .websocket_frames import NotAMessageError, requests

ASK_INTERVAL, ASK_TIMEOUT = 0.005, 2.0
"""Seconds between looks at whether a client can be asked, and after which it will not be."""

AGAIN_INTERVAL = 0.2
"""Seconds after which it is tried again to forward what could not be."""

_MAY_ASK = re.compile(rb'"allow_stdin":\s*true')

SETTLE_INTERVAL = 0.01
SETTLE_TIMEOUT = 30.0
"""Seconds for which what was written to a client may still get there."""

_MOST_SEEN = 2 * MOST_PENDING
"""Requests that are known to have been forwarded, the latest."""

REPLYING = (Channel.SHELL, Channel.CONTROL)
"""Channels on which a kernel replies to requests."""

_CHANNELS = (*REPLYING, Channel.STDIN)


class Connected(NamedTuple):
    """A client's connection, as the server has made it known."""

    peer: Peer | None
    delivery: Delivery

    @property
    def delivered(self) -> int | None:
        """The number of the last message that has arrived; None: it had not begun."""
        return self.delivery.delivered(self.peer.acknowledged if self.peer else None)

    @property
    def is_under_way(self) -> bool:
        """Whether something was written that has not arrived."""
        return self.delivered != self.delivery.delivered(sys.maxsize)

    def close(self) -> None:
        """End it: no server has it any more."""
        if self.peer is not None:
            self.peer.close()
        self.delivery.close()

    def release(self) -> None:
        """Let go of it: the server still has it."""
        if self.peer is not None:
            self.peer.release()
        self.delivery.close()


class _Message(NamedTuple):
    channel: Channel
    frames: Sequence[bytes]
    """With the delimiter and a signature."""
    stream: Stream | None
    number: int
    """Its place among those that came on the stream, from 1."""

    @property
    def may_ask(self) -> bool:
        """Whether what comes of it may be a question."""
        content = self.frames[1 + CONTENT] if len(self.frames) > 1 + CONTENT else b""
        return _MAY_ASK.search(content) is not None


class Client:
    """What is known of a client, whether or not it is connected.

    :param memo: what another keeper will know of it
    :param record: is given what the kernel sends to it alone
    :param forwarded: is told that a message of its was forwarded
    """

    def __init__(
        self,
        kernel: Endpoint,
        memo: Memo,
        record: Callable[[list[tuple[Channel, bytes, Sequence[bytes]]]], object],
        forwarded: Callable[[], object] = lambda: None,
    ) -> None:
        self.memo = memo
        self._kernel = kernel
        self._record = record
        self._forwarded = forwarded
        self.allowed: frozenset[str] = frozenset()
        """Types of messages that it may send; empty: all."""
        self.stream: Stream | None = None
        self.unconfirmed = 0
        """How many of its messages were forwarded, of which the server has not been told."""
        self._connection: Connected | None = None
        self._settling: _Settling | None = None
        self._seen: dict[str, None] = dict.fromkeys(memo.pending)
        self._sent = self._confirmed = 0
        """Of the messages that came on the stream: the last one's number, and of the last one that
        was forwarded together with all before it."""
        self._overtaking: set[int] = set()
        """Those after that which were forwarded."""
        self._waiting: deque[_Message] = deque()
        self._answers: deque[_Message] = deque()
        self._answering: Timer | None = None
        self._is_closed = False
        self._name = ""
        """Of the sockets that it sends on; empty: there are none."""
        self._sockets: dict[str, dict[Channel, Receiver]] = {}
        """All of its sockets, by their name: also those on which replies are to come yet."""

    def has_sent(self, ids: Iterable[str]) -> None:
        """Note what another keeper has forwarded: it is not forwarded again."""
        self._seen.update(dict.fromkeys(ids))

    # ------------------------------------------------------------------ the kernel

    def connect(self) -> None:
        """Be connected to the kernel.

        It is under a new name each time: there are kernels that hear nobody whose name was in use.
        """
        if not self._name:
            name = uuid.uuid4().hex
            self._open(name)
            self._name = name

    def _open(self, name: str) -> None:
        """Have sockets to which the kernel sends what it has for a name."""
        opened: dict[Channel, Receiver] = {}
        try:
            for channel in _CHANNELS:
                opened[channel] = Receiver(
                    self._kernel.loop,
                    self._kernel.open_socket(channel, zmq.DEALER, name.encode()),
                    partial(self._received, channel),
                )
        except BaseException:
            for receiver in opened.values():
                receiver.close()
            raise
        self._sockets[name] = opened

    def begin_anew(self) -> None:
        """Expect nothing of a kernel's former process, nor answer what that has asked."""
        self.memo.pending.clear()
        while self._answers:
            self._confirm(self._answers.popleft())

    def reconnect(self) -> None:
        """Be connected to where the kernel is now, if there is something to come."""
        was_connected = bool(self._name)
        self._close_sockets(self._sockets)
        for name in {*self.memo.pending.values()}:
            self._open(name)
        if was_connected:
            self.connect()

    def _close_sockets(self, names: Iterable[str]) -> None:
        for name in [*names]:
            for receiver in self._sockets.pop(name).values():
                receiver.close()
            if name == self._name:
                self._name = ""

    def send(self, channel: Channel, frames: Sequence[bytes]) -> None:
        """Send a message of the client's to the kernel, as soon as that is heard.

        :param frames: with the delimiter and a signature
        """
        self._sent += 1
        message = _Message(channel, frames, self.stream, self._sent)
        if channel is Channel.STDIN:
            self._answers.append(message)
            self._forward_answers()
        elif channel is Channel.SHELL:
            self._kernel.when_heard(partial(self._forward_in_order, message))
        else:
            self._kernel.when_heard(partial(self._forward_alone, message))

    def _forward_alone(self, message: _Message) -> None:
        """Forward a message that waits for no other."""
        if not self._forward(message) and not self._is_closed:
            again = partial(self._forward_alone, message)
            self._kernel.loop.call_later(AGAIN_INTERVAL, again)

    def _forward_answers(self) -> None:
        """Forward answers to questions, as soon as there is a connection that they go on."""
        while self._answers:
            if not self._has_stdin():
                self._answer_later(ASK_INTERVAL)
                break
            answer = self._answers.popleft()
            if not self._forward(answer):
                self._answers.appendleft(answer)
                self._answer_later(AGAIN_INTERVAL)
                break

    def _answer_later(self, seconds: float) -> None:
        if self._answering is None:
            self._answering = self._kernel.loop.call_later(seconds, self._answer_again)

    def _answer_again(self) -> None:
        self._answering = None
        self._forward_answers()

    def _forward_in_order(self, message: _Message) -> None:
        self._waiting.append(message)
        if len(self._waiting) == 1:
            self._forward_waiting()

    def _forward_waiting(self, until: float | None = None) -> None:
        """Forward requests, each that may ask the client something when a question would get here.

        A kernel drops a question for a name that it does not know, and waits for the answer.

        :param until: when it is taken for a kernel that asks nothing
        """
        until = time.monotonic() + ASK_TIMEOUT if until is None else until
        while self._waiting:
            if self._waiting[0].may_ask and not self._can_be_asked(until):
                self._kernel.loop.call_later(ASK_INTERVAL, partial(self._look_again, until))
                break
            message = self._waiting.popleft()
            if not self._forward(message):
                self._waiting.appendleft(message)
                self._kernel.loop.call_later(AGAIN_INTERVAL, partial(self._look_again, until))
                break

    def _look_again(self, until: float) -> None:
        if self._kernel.is_heard:
            self._forward_waiting(until)
        else:  # it has ended meanwhile
            self._kernel.when_heard(self._forward_waiting)

    def _can_be_asked(self, until: float) -> bool:
        if self._kernel.asks_nothing or self._has_stdin():
            return True
        self._kernel.asks_nothing = time.monotonic() > until
        return self._kernel.asks_nothing

    def _has_stdin(self) -> bool:
        """Tell whether there is a connection for questions and answers now."""
        try:
            self.connect()
        except (OSError, zmq.ZMQError):
            return True  # whoever forwards something is told what is wrong
        return self._sockets[self._name][Channel.STDIN].find_connected()

    def _confirm(self, message: _Message) -> None:
        """Count what is forwarded, as far as all before it is: the server forgets it in that order.

        What is no message is counted too, for the server counts them all.
        """
        if message.stream is None or message.stream is not self.stream:
            return
        self._overtaking.add(message.number)
        while self._confirmed + 1 in self._overtaking:
            self._confirmed += 1
            self._overtaking.remove(self._confirmed)
            self.unconfirmed += 1
        if self.unconfirmed:
            self._forwarded()

    def _forward(self, message: _Message) -> bool:
        """Forward a message, which is confirmed then; tell whether it is not to be tried again."""
        try:
            self._pass_on(message.channel, message.frames)
        except zmq.Again:  # zmq has given this connection up
            self._name = ""
            return False
        except Exception as error:  # what is wrong with it is this client's matter
            if isinstance(error, OSError | zmq.ZMQError) and is_shortage(error):
                return False
            self._kernel.loop.log(traceback.format_exc())
        self._confirm(message)
        return True

    def _pass_on(self, channel: Channel, frames: Sequence[bytes]) -> None:
        """Send a message to the kernel, once.

        :raises OSError: there is no connection
        :raises zmq.ZMQError: there is none, or it takes nothing
        """
        if channel not in _CHANNELS or len(frames) <= HEADER + CONTENT:
            return
        asked, kind = id_and_type(frames[1 + HEADER])
        if asked in self._seen:
            return
        self.connect()
        if asked is not None and channel in REPLYING and (kind or "").endswith("_request"):
            self.memo.asks(asked, self._name)
        receiver = self._sockets[self._name][channel]
        receiver.socket.send_multipart(frames, zmq.NOBLOCK)
        if asked is not None:
            remember(self._seen, asked, _MOST_SEEN)
        receiver.look()

    def _received(self, channel: Channel, messages: list[list[bytes]]) -> None:
        self.replied(channel, [frames for message in messages if (frames := frames_of(message))])

    def replied(self, channel: Channel, found: Sequence[Sequence[bytes]]) -> None:
        """Record what the kernel has sent to this client alone."""
        had = len(self.memo.pending)
        if channel in REPLYING:  # a question on stdin is no reply yet
            for frames in found:
                self.memo.pending.pop(message_id(frames[PARENT]) or "", None)
        self._record([(channel, self.memo.client, frames) for frames in found])
        if len(self.memo.pending) != had:
            self.memo.write()
            self._rest()

    @property
    def is_away(self) -> bool:
        """Whether it is neither connected nor waited for."""
        is_used = self._connection or self._settling or self._waiting or self.memo.pending
        return not is_used

    def _rest(self) -> None:
        """Let go of what is of no use when nothing is to come for it alone."""
        used = {*self.memo.pending.values()}
        if self.stream is not None:
            used.add(self._name)
        self._close_sockets(self._sockets.keys() - used)
        if self.is_away:
            self.memo.rest()

    # ------------------------------------------------------------------ the server

    def attach(self, stream: Stream, connection: Connected) -> None:
        """Be connected to the server: it gets what the client has not, and then what comes."""
        self.stream, self._connection = stream, connection
        self.unconfirmed = self._sent = self._confirmed = 0
        self._overtaking.clear()
        with contextlib.suppress(OSError, zmq.ZMQError):  # else when it sends something
            self.connect()
        stream.pump()

    def confirm(self) -> bool:
        """Note what has arrived by now: the server and the keeper may end together.

        :returns: whether something is on its way
        """
        connection = self._connection
        if connection is None:
            return False
        if connection.peer is not None:
            connection.peer.ask()
        self._note_received(connection)
        return connection.is_under_way

    def _note_received(self, connection: Connected) -> None:
        received = connection.delivered
        if received is not None and received != self.memo.received:
            self.memo.received = received
            self.memo.write()

    def detach(self) -> None:
        """Be disconnected: forward what was received and not handled; find out what has arrived.

        What the client sends from now on is dropped: no server that runs has let it in.
        """
        connection, self._connection = self._connection, None
        self.stream = None
        if connection is None:
            return
        if connection.peer is not None:
            # Whatever it has sent, the connection must end, and who waits for that must go on.
            forward = partial(self._forward_unhandled, connection.peer, connection.delivery)
            self._kernel.loop.call(forward)
        self._settling = _Settling(self._kernel.loop, self, connection)

    def suspend(self) -> None:
        """Send the client nothing more; whether its server goes on will be seen."""
        self.stream = None

    def release(self) -> None:
        """Let go of a connection that the server has attached to nothing, and still has."""
        connection, self._connection = self._connection, None
        if connection is not None:
            if connection.peer is not None:
                connection.peer.ask()
            self._note_received(connection)
            connection.release()
            self._rest()

    @property
    def is_settling(self) -> bool:
        """Whether it is not known yet what the client has of what it was sent."""
        return self._settling is not None

    def when_settled(self, callback: Callable[[], object], timeout: float) -> None:
        """Call when it is known what the client has; after a time, whatever is known then."""
        if self._settling is not None:
            self._settling.then(callback, timeout)

    def settled(self, connection: Connected) -> None:
        """Note what has arrived."""
        self._settling = None
        self._note_received(connection)
        connection.close()
        self._rest()

    def _forward_unhandled(self, peer: Peer, delivery: Delivery) -> None:
        found, connection = peer.take_unread(), self._kernel.connection
        data = None if found is None else delivery.unhandled(*found)
        if not data or connection is None:
            return
        with contextlib.suppress(NotAMessageError):
            for channel, parts in requests(data):
                if not self.allowed or message_type(parts[0]) in self.allowed:
                    self.send(channel, [DELIMITER, *connection.sign(parts)])

    def close(self) -> None:
        """Let go of the client."""
        self._is_closed = True
        self._waiting.clear()
        self._answers.clear()
        self._close_sockets(self._sockets)
        self.memo.rest()
        self.stream = None
        if self._settling is not None:
            self._settling.cancel()
        if self._connection is not None:
            self._connection.release()


class _Settling:
    """Waits until what was written to a client has arrived, or cannot arrive any more."""

    def __init__(self, loop: Loop, client: Client, connection: Connected) -> None:
        self._loop = loop
        self._client = client
        self._connection = connection
        self._peer = connection.peer
        self._deadline = time.monotonic() + SETTLE_TIMEOUT
        self._then: list[Callable[[], object]] = []
        self._timer: Timer | None = None
        if self._peer is not None:
            self._peer.hang_up()
        # Not at once: the client's own settling is this object by then.
        self._timer = self._loop.call_later(0, self._look)

    def _look(self) -> None:
        if self._peer is not None and self._peer.look() and time.monotonic() < self._deadline:
            self._timer = self._loop.call_later(SETTLE_INTERVAL, self._look)
            return
        self._timer = None
        self._client.settled(self._connection)
        for callback in self._then:
            callback()

    def then(self, callback: Callable[[], object], timeout: float) -> None:
        self._then.append(callback)
        self._deadline = min(self._deadline, time.monotonic() + timeout)

    def cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._connection.close()
        for callback in self._then:
            callback()
