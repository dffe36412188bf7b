"""A client's connection to a kernel, over the keeper: what was sent meanwhile comes first."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any
from uuid import uuid4

import zmq
from jupyter_client.jsonutil import json_default
from jupyter_client.session import DELIM
from jupyter_server.services.kernels.connection.base import serialize_msg_to_ws_v1
from jupyter_server.services.kernels.connection.channels import ZMQChannelsWebsocketConnection
from tornado.iostream import IOStream, StreamClosedError
from tornado.websocket import WebSocketClosedError

from ..errors import KeeperError, KeeperGoneError, NoKeeperError
from ..keeper.delivery import Delivery
from ..keeper.messages import CONTENT, HEADER, PARENT
from ..keeper.protocol import CHANNELS, Record, unpack_records
from ..keeper.supervisor import Supervisor
from .incoming import Incoming, Unconfirmed, buffered, can_note, refuse_endless
from .pace import Pace, sent_at
from .recording import KeptStream, RecordingMixin
from .text import Message

_NAMES = {channel: name for name, channel in CHANNELS.items()}

_V1 = "v1.kernel.websocket.jupyter.org"

_LOOK_INTERVAL, _ASK_INTERVAL = 0.02, 0.5
"""Seconds between looks at the state of a kernel that starts, and between questions to it."""

_PASS_ON = 1 << 16
"""Bytes after which the keeper hears that they were passed on."""

_UNLIMITED = {"status", "comm_open", "execute_input"}
"""Types of messages that jupyter_server does not count when it limits the rate."""

_LATE = 0.5
"""Seconds after which a message has waited, and does not come as it was sent."""

_ATTEMPTS, _ATTEMPT_INTERVAL = 6, 0.2
"""How often a client is tried to be connected, and seconds by which each wait is longer."""


class KeptConnectionMixin(ZMQChannelsWebsocketConnection):
    """Stands in front of a connection class; like it where there is no keeper."""

    _stream: int | None = None
    _delivery: Delivery | None = None
    _is_kept = False
    _current: Record | None = None
    _last = 0
    """The number of the last message that was passed on."""
    _replayed = 0
    """The number of the last one that was there before the client was."""
    _unacknowledged = 0
    _missed: int | None = None
    """How many messages are missing, of which the client was not told; 0: it is not known."""
    _early: list[bytes] | None = None
    """What came before the client was connected."""
    _incoming: Incoming | None = None
    _is_over = False
    _has_state = False
    _asking: asyncio.Future[None] | None = None

    @property
    def _keeper(self) -> Supervisor:
        keeper: Supervisor = self.multi_kernel_manager.keeper
        return keeper

    @property
    def _io(self) -> IOStream:
        connection: Any = self.websocket_handler.ws_connection
        io: IOStream = connection.stream
        return io

    # ------------------------------------------------------------------ attach

    def create_stream(self) -> None:
        """Have the kernel's channels over the keeper."""
        mapping = self.multi_kernel_manager
        self._is_kept = isinstance(mapping, RecordingMixin) and mapping.is_kept(self.kernel_id)
        if not self._is_kept:
            super().create_stream()
            return
        self._early = []
        self._unconfirmed = Unconfirmed()
        self._pace = Pace(self.rate_limit_window)
        self.channels = {name: KeptStream(self, name) for name in CHANNELS}

    def nudge(self) -> asyncio.Future[None]:
        """Connect; the keeper has seen to it that the kernel is heard."""
        if not self._is_kept:
            return super().nudge()
        return asyncio.ensure_future(self._attach())

    async def _attach(self, number: int | None = None) -> None:
        # A short message waited some 40 ms for a delayed acknowledgement of the one before.
        self._io.set_nodelay(True)
        if self._delivery is None:
            self._delivery = Delivery.create()
            if can_note(self._io):
                self._incoming = Incoming(self._io, self._delivery)
        try:
            peer = self._io.socket.fileno() if self._incoming is not None else None
            answer = await self._tried(peer, number)
        except (KeeperError, OSError) as error:
            self.log.log(
                logging.DEBUG if isinstance(error, NoKeeperError) else logging.ERROR,
                "Kernel %s is connected to without its keeper: %s",
                self.kernel_id,
                error,
            )
            await self._go_without()
            return
        if self._is_over:
            self._keeper.detach(answer["stream"])
            return
        self._stream = answer["stream"]
        if number is None and self._is_starting():
            # Beside this, for tornado reads nothing from a client until it is connected.
            self._asking = asyncio.ensure_future(self._ask_until_started())
        if self._asking is None:
            self._send_unconfirmed()
        self._last, self._replayed = answer["received"], answer["last"]
        self._delivery.begin(self._last)
        self.begin()

    def _send_unconfirmed(self) -> None:
        if self._stream is not None:
            for channel, frames in self._unconfirmed:
                self._keeper.request(self._stream, channel, frames)

    async def _ask_until_started(self) -> None:
        """Ask a kernel of which nothing was heard yet, as jupyter_server does.

        What the client sends waits for that: else the server would not know that the kernel works.
        """
        try:
            await self._ask()
        finally:
            self._asking = None
            self._send_unconfirmed()

    async def _ask(self) -> None:
        shell = self.kernel_manager.connect_shell()
        shell.socket.setsockopt(zmq.LINGER, 0)
        try:
            now = asks = time.monotonic()
            until = now + self.kernel_info_timeout
            while self._is_starting() and now < until:
                if now >= asks:
                    self.session.send(shell, "kernel_info_request")
                    asks = now + _ASK_INTERVAL
                await asyncio.sleep(_LOOK_INTERVAL)
                now = time.monotonic()
        finally:
            shell.close()

    def _is_starting(self) -> bool:
        state = getattr(self.kernel_manager, "execution_state", None)
        is_there = self.kernel_id in self.multi_kernel_manager and bool(self.channels)
        return is_there and state == "starting"

    async def _tried(self, peer: int | None, number: int | None) -> dict[str, Any]:
        """Ask the keeper; it may end in that moment."""
        attempts = itertools.count(1)
        while True:
            if self._delivery is None:
                raise KeeperError("the client has gone")
            try:
                return await self._keeper.attach(
                    self,
                    self.kernel_id,
                    self.session.session,
                    delivery=self._delivery.file,
                    peer=peer,
                    number=number,
                )
            except KeeperGoneError:
                attempt = next(attempts)
                if attempt >= _ATTEMPTS or self._is_over:
                    raise
                await asyncio.sleep(attempt * _ATTEMPT_INTERVAL)

    async def _go_without(self) -> None:
        """Be connected as without a keeper: what is sent meanwhile is lost with the server.

        What the client sends waits until the kernel is heard: else what comes of it is missed.
        """
        self._is_kept = False
        self.detach()
        await self.multi_kernel_manager.catch_up()  # it is not waited for one that is busy
        if self._is_over:
            return
        kept, self.channels = self.channels, {}
        try:
            super().create_stream()
            nudged = super().nudge()
        finally:
            direct, self.channels = self.channels, kept
        try:
            await nudged
        finally:
            self._go_direct(direct)

    def _go_direct(self, channels: dict[str, Any]) -> None:
        """Have the kernel's own channels in place of the keeper's."""
        if self._is_over:
            for stream in channels.values():
                stream.close()
            return
        self.channels = channels
        for stream in channels.values():
            stream.on_recv_stream(self.handle_outgoing_message)
        for channel, frames in self._unconfirmed:
            channels[channel].send_multipart(frames)
        self._unconfirmed.clear()

    def begin(self) -> None:
        """Pass on what has come while the client was being connected, when that is done."""
        channels = self.channels.values()
        if self._early is None or self._stream is None or not all(c.callback for c in channels):
            return
        early, self._early = self._early, None
        self._has_state = False
        if self._last >= self._replayed:
            self._send_state()
        for records in early:
            self.received(records)

    def _send_state(self, record: Record | None = None) -> None:
        """Tell a client that has missed nothing, or has got it now, how the kernel is.

        :param record: the last that it has got
        """
        self._has_state = True
        state = getattr(self.kernel_manager, "execution_state", None)
        if state in ("busy", "idle") and (state == "busy" or self._replayed):
            with contextlib.suppress(WebSocketClosedError):
                if record is None:
                    self._send_status_message(state)
                else:
                    self._say("status", {"execution_state": state}, record, {})

    def end(self) -> None:
        """Disconnect: the client has gone."""
        self._is_over = True
        if self._asking is not None:
            self._asking.cancel()
        self.detach()

    def detach(self) -> None:
        """Be connected to the keeper no more."""
        if self._incoming is not None:
            self._incoming.stop()
            self._incoming = None
        stream, self._stream = self._stream, None
        if stream is not None:
            self._keeper.detach(stream)
        delivery, self._delivery = self._delivery, None
        if delivery is not None:
            delivery.close()

    def lost(self) -> None:
        """Connect over another keeper."""
        self._stream = None
        if not self._keeper.keeps(self.kernel_id):  # it has ended: nothing is to come
            self.detach()
        elif not self._is_over:
            self._early = []
            self._attaching = asyncio.ensure_future(self._attach(self._last))

    # ------------------------------------------------------------------ from the client

    def request(self, channel: str, frames: list[bytes]) -> None:
        """Send the client's message to the kernel."""
        self._unconfirmed.add(channel, frames)
        if self._stream is not None and self._asking is None:
            self._keeper.request(self._stream, channel, frames)

    def forwarded(self, count: int) -> None:
        """Forget messages that the kernel has."""
        end = self._unconfirmed.confirm(count)
        if self._delivery is not None and end is not None:
            self._delivery.handle(end)

    def handle_incoming_message(self, incoming_msg: Any) -> None:
        """Handle a message, and note that it is when the kernel has what comes of it.

        :raises ValueError: it is none; the connection is closed
        """
        if isinstance(incoming_msg, bytes):
            refuse_endless(incoming_msg, is_v1=self.subprotocol == _V1)
        super().handle_incoming_message(incoming_msg)
        if self._delivery is not None and self._incoming is not None:
            end = self._delivery.taken - buffered(self._io)
            if not self._unconfirmed.end_last(end):
                self._delivery.handle(end)

    # ------------------------------------------------------------------ to the client

    def received(self, records: bytes) -> None:
        """Pass on what the kernel has sent, in order."""
        if self._is_over:
            return
        if self._early is not None:
            self._early.append(records)
            return
        try:
            for record in unpack_records(records):
                self._last = record.number
                self._take(record)
        finally:
            self._unacknowledged += len(records)
            if self._unacknowledged >= _PASS_ON:
                self._acknowledge_when_written()

    def _take(self, record: Record) -> None:
        try:
            if record.client in (b"", self.session.bsession):
                self._pass_on(record)
            if not self._has_state and record.number >= self._replayed:
                self._send_state(record)
        except Exception:
            self.log.exception("A message of kernel %s is not passed on", self.kernel_id)

    def _pass_on(self, record: Record) -> None:
        stream = self.channels.get(_NAMES[record.channel])
        if stream is None or stream.callback is None:
            return
        if self._missed is not None:
            self._tell_missed(record)
        self._current = record
        try:
            stream.callback(stream, [DELIM, *record.frames])
        finally:
            self._current = None
        if record.number > self._replayed and b'"status"' in record.frames[HEADER]:
            self.multi_kernel_manager.shown(self.kernel_id, record.frames[HEADER])

    def _acknowledge_when_written(self) -> None:
        size, self._unacknowledged = self._unacknowledged, 0

        def acknowledge(_: object = None) -> None:
            if self._stream is not None:
                self._keeper.passed_on(self._stream, size)

        if self._io.writing():
            flushed = asyncio.ensure_future(_flushed(self._io))
            flushed.add_done_callback(acknowledge)
        else:
            acknowledge()

    def missed(self, count: int) -> None:
        """Have the client told, before what comes next, that something is missing."""
        self._missed = (self._missed or 0) + count

    def _tell_missed(self, record: Record) -> None:
        """Tell in the cell that a message is about: it is of those that something is missing of."""
        count, self._missed = self._missed, None
        what = "1 message was" if count == 1 else f"{count or 'Some'} messages were"
        text = f"{what} dropped: there was more output than is kept."
        self.log.warning("Kernel %s: %s", self.kernel_id, text)
        stream = {"name": "stderr", "text": f"[{text}]\n"}
        with contextlib.suppress(WebSocketClosedError):
            self._say("stream", stream, record, json.loads(record.frames[PARENT]) or {})

    def _say(
        self, kind: str, content: dict[str, Any], record: Record, parent: dict[str, Any]
    ) -> None:
        """Write a message in the kernel's name, as a record of it has that.

        JupyterLab gives up what waits to be handled when a message comes from elsewhere.
        """
        message = self.session.msg(kind, content=content, parent=parent)
        message["header"]["session"] = json.loads(record.frames[HEADER])["session"]
        # The session begins to count again with each connection.
        message["header"]["msg_id"] = message["msg_id"] = uuid4().hex
        if self.subprotocol == _V1:
            data = serialize_msg_to_ws_v1(message, "iopub", self.session.pack)
            self.write_message(data, binary=True)
        else:
            self.write_message(json.dumps({**message, "channel": "iopub"}, default=json_default))

    def handle_outgoing_message(self, stream: Any, outgoing_msg: list[Any]) -> None:
        """Pass a message on as it is, where nothing has to be done to it."""
        message = self._as_it_is(outgoing_msg) if isinstance(stream, KeptStream) else None
        if message is None or stream.closed():
            super().handle_outgoing_message(stream, outgoing_msg)
        elif not self._limit_rate(stream.channel, message.read, message.parts):
            with contextlib.suppress(WebSocketClosedError):
                self.write_message(message.text(stream.channel))

    def _as_it_is(self, outgoing: Sequence[bytes]) -> Message | None:
        if self.subprotocol == _V1 or not self._passes_on_as_it_is():
            return None
        try:
            return Message(self.session, outgoing[1:])
        except (ValueError, RecursionError):
            return None

    def _passes_on_as_it_is(self) -> bool:
        """Tell whether jupyter_server would, and no class of somebody else's is in between."""
        behind = super(KeptConnectionMixin, type(self))
        return self.multi_kernel_manager.allow_tracebacks and all(
            getattr(behind, name) is getattr(ZMQChannelsWebsocketConnection, name)
            for name in (
                "handle_outgoing_message", "_on_zmq_reply", "_reserialize_reply", "_on_error",
            )
        )  # fmt: skip

    def _limit_rate(self, channel: Any, msg: Any, msg_list: Any) -> bool:
        """Limit what comes; not what was there before the client was, or has waited for it."""
        if self._current is not None and self._current.number <= self._replayed:
            return False
        is_counted = self._is_kept and self.limit_rate and channel == "iopub"
        if is_counted and self._has_waited(msg, msg_list):
            return False
        limited: bool = super()._limit_rate(channel, msg, msg_list)
        return limited

    def _has_waited(self, msg: Any, msg_list: Any) -> bool:
        """Tell what comes all at once only because the client, or the server, was slow."""
        header = msg["header"] = self.get_part("header", msg["header"], msg_list)
        kind, sent = header["msg_type"], sent_at(header.get("date"))
        if kind == "status" and b'"idle"' in msg_list[CONTENT - HEADER]:
            self._pace.reset()
        if kind in _UNLIMITED or sent is None:
            return False
        self._pace.add(sent, sum(map(len, msg_list)) if kind == "stream" else 0)
        is_within = self._pace.is_within(self.iopub_msg_rate_limit, self.iopub_data_rate_limit)
        return is_within and time.time() - sent > _LATE

    @property
    def write_message(self) -> Callable[..., Any]:
        """What writes to the client."""
        write: Callable[..., Any] = super().write_message
        return write if self._delivery is None else self._write

    def _write(self, message: Any, binary: bool = False) -> Any:
        """Write to the client, and note where in its connection's bytes the message ends."""
        data = message if isinstance(message, bytes) else message.encode()
        delivery, io, current = self._delivery, self._io, self._current
        is_compressed = self.websocket_handler.get_compression_options() is not None
        if delivery is not None and current is not None and not is_compressed:
            size = len(data)
            head = 2 if size < 126 else 4 if size < 1 << 16 else 10
            delivery.write(current.number, io._total_write_index + head + size)
        written = super().write_message(data if binary else message, binary=binary)
        if delivery is not None:
            if current is not None and is_compressed:  # its size was not known before
                delivery.write(current.number, io._total_write_index)
            delivery.wrote(io._total_write_done_index)
        return written


async def _flushed(io: IOStream) -> None:
    """Wait until all is written that is to be written."""
    with contextlib.suppress(StreamClosedError):
        await io.write(b"")
