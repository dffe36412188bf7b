"""A client's connection to a kernel, over the keeper: what was sent meanwhile comes first."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import socket
import struct
import termios
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import zmq
from jupyter_client.session import DELIM
from jupyter_server.services.kernels.connection.channels import ZMQChannelsWebsocketConnection
from tornado.iostream import IOStream, StreamClosedError
from tornado.websocket import WebSocketClosedError

from ..errors import KeeperError
from ..keeper.delivery import Delivery
from ..keeper.protocol import CHANNELS, Record, unpack_records
from ..keeper.supervisor import Supervisor

_NAMES = {channel: name for name, channel in CHANNELS.items()}

_PASS_ON = 1 << 18
"""Bytes after which the keeper hears that they were passed on."""

_ATTEMPTS, _ATTEMPT_INTERVAL = 6, 0.2
"""How often a client is tried to be connected, and seconds by which each wait is longer."""

_RECEIVED = 128
"""Where ``struct tcp_info`` has ``tcpi_bytes_received``."""


class KeptStream:
    """What jupyter_server takes for a kernel's channel."""

    def __init__(self, connection: KeptConnectionMixin, channel: str) -> None:
        self._connection = connection
        self.channel = channel
        self.callback: Callable[[KeptStream, list[bytes]], object] | None = None
        self._is_closed = False

    def send_multipart(self, parts: Sequence[Any], *_: Any, **__: Any) -> None:
        """Send a message to the kernel."""
        frames = [part.bytes if isinstance(part, zmq.Frame) else bytes(part) for part in parts]
        self._connection.request(self.channel, frames)

    def on_recv_stream(self, callback: Any) -> None:
        """Call with what the kernel sends."""
        self.callback = callback
        if callback is not None:
            self._connection.begin()

    on_recv = on_recv_stream

    def stop_on_recv(self) -> None:
        """Do not call any more."""
        self.callback = None

    def flush(self, *_: Any) -> None:
        """Do nothing: what has come has been passed on."""

    def closed(self) -> bool:
        """Tell whether it is closed."""
        return self._is_closed

    def close(self, *_: Any) -> None:
        """Close the channel; with it the client is disconnected."""
        self._is_closed = True
        self._connection.detach()


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
    _early: list[bytes] | None = None
    """What came before the client was connected."""

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
        self._is_kept = self.multi_kernel_manager.is_kept(self.kernel_id)
        if not self._is_kept:
            super().create_stream()
            return
        self._early = []
        self._unconfirmed: deque[tuple[str, list[bytes]]] = deque()
        self.channels = {name: KeptStream(self, name) for name in CHANNELS}

    def nudge(self) -> asyncio.Future[None]:
        """Connect; the keeper has seen to it that the kernel is heard."""
        if not self._is_kept:
            return super().nudge()
        return asyncio.ensure_future(self._attach())

    async def _attach(self, number: int | None = None) -> None:
        plain = type(self._io) is IOStream
        # A short message waited some 40 ms for a delayed acknowledgement of the one before.
        self._io.set_nodelay(True)
        for attempt in range(_ATTEMPTS):
            try:
                answer = await self._keeper.attach(
                    self,
                    self.kernel_id,
                    self.session.session,
                    file=self._io.socket.fileno() if plain else None,
                    number=number,
                )
                break
            except (KeeperError, OSError) as error:  # it may have ended in that moment
                reason = str(error)
                await asyncio.sleep(attempt * _ATTEMPT_INTERVAL)
                if not self.channels:
                    return
        else:
            self.log.error("Kernel %s cannot be connected to: %s", self.kernel_id, reason)
            self.websocket_handler.close(1011, "the keeper is not there")
            return
        self._stream = answer["stream"]
        for channel, frames in self._unconfirmed:
            self._keeper.request(self._stream, channel, frames)
        self._last, self._replayed = answer["received"], answer["last"]
        if self._delivery is not None:
            self._delivery.close()
        self._delivery = Delivery(Path(answer["file"]))
        if plain:
            _Input(self._io, self._delivery)
        if not self.channels:
            self.detach()
            return
        self.begin()

    def begin(self) -> None:
        """Pass on what has come while the client was being connected, when that is done."""
        channels = self.channels.values()
        if self._early is None or self._stream is None or not all(c.callback for c in channels):
            return
        early, self._early = self._early, None
        if self._last >= self._replayed:
            self._send_state()
        for records in early:
            self.received(records)

    def _send_state(self) -> None:
        """Tell a client that has missed nothing, or has got it now, how the kernel is."""
        state = getattr(self.kernel_manager, "execution_state", None)
        if state in ("busy", "idle") and (state == "busy" or self._replayed):
            with contextlib.suppress(WebSocketClosedError):
                self._send_status_message(state)

    def detach(self) -> None:
        """Disconnect."""
        stream, self._stream = self._stream, None
        if stream is not None:
            self._keeper.detach(stream)
        delivery, self._delivery = self._delivery, None
        if delivery is not None:
            delivery.close()

    def lost(self) -> None:
        """Connect over another keeper."""
        self._stream = None
        if self.channels:
            self._early = []
            self._attaching = asyncio.ensure_future(self._attach(self._last))

    # ------------------------------------------------------------------ from the client

    def request(self, channel: str, frames: list[bytes]) -> None:
        """Send the client's message to the kernel."""
        self._unconfirmed.append((channel, frames))
        if self._stream is not None:
            self._keeper.request(self._stream, channel, frames)

    def forwarded(self, count: int) -> None:
        """Forget messages that the kernel has."""
        for _ in range(min(count, len(self._unconfirmed))):
            self._unconfirmed.popleft()

    def handle_incoming_message(self, incoming_msg: Any) -> None:
        """Handle a message, and note that it is."""
        super().handle_incoming_message(incoming_msg)
        if self._delivery is not None:
            self._delivery.handle(_buffered(self._io))

    # ------------------------------------------------------------------ to the client

    def received(self, records: bytes) -> None:
        """Pass on what the kernel has sent, in order."""
        if self._early is not None:
            self._early.append(records)
            return
        own = self.session.bsession
        for record in unpack_records(records):
            self._last = record.number
            stream = self.channels.get(_NAMES[record.channel])
            if stream is not None and record.client in (b"", own):
                self._pass_on(stream, record)
            if record.number == self._replayed:
                self._send_state()
        self._unacknowledged += len(records)
        if self._unacknowledged >= _PASS_ON:
            self._acknowledge_when_written()

    def _pass_on(self, stream: KeptStream, record: Record) -> None:
        self._current = record
        try:
            if stream.callback is not None:
                stream.callback(stream, [DELIM, *record.frames])
        except Exception:
            self.log.exception("A message of kernel %s is not passed on", self.kernel_id)
        finally:
            self._current = None

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
        """Tell the client that something is missing."""
        self.write_stderr(
            f"[{count} messages of this kernel were dropped: there was more output than is kept.]",
            {},
        )

    def _limit_rate(self, channel: Any, msg: Any, msg_list: Any) -> bool:
        """Limit what comes; not what was there before the client was."""
        if self._current is not None and self._current.number <= self._replayed:
            return False
        limited: bool = super()._limit_rate(channel, msg, msg_list)
        return limited

    @property
    def write_message(self) -> Callable[..., Any]:
        """What writes to the client."""
        write: Callable[..., Any] = super().write_message
        return write if self._delivery is None else self._write

    def _write(self, message: Any, binary: bool = False) -> Any:
        """Write to the client, and note where in its connection's bytes the message ends."""
        data = message if isinstance(message, bytes) else message.encode()
        delivery, io = self._delivery, self._io
        if delivery is not None and self._current is not None:
            size = len(data)
            head = 2 if size < 126 else 4 if size < 1 << 16 else 10
            delivery.write(self._current.number, io._total_write_index + head + size)
        written = super().write_message(data if binary else message, binary=binary)
        if delivery is not None:
            delivery.wrote(io._total_write_done_index)
        return written


class _Input:
    """Notes what a connection receives, before it takes it from the socket."""

    def __init__(self, io: IOStream, delivery: Delivery) -> None:
        self._socket: socket.socket = io.socket
        self._delivery = delivery
        waiting = struct.unpack("i", fcntl.ioctl(self._socket, termios.FIONREAD, bytes(4)))[0]
        info = self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
        (received,) = struct.unpack_from("<Q", info, _RECEIVED)
        left = _buffered(io)
        delivery.begin_input(received - waiting, bytes(io._read_buffer[-left:]) if left else b"")
        io.read_from_fd = self._read  # type: ignore[method-assign, assignment]

    def _read(self, buffer: bytearray | memoryview) -> int | None:
        try:
            size = self._socket.recv_into(buffer, len(buffer), socket.MSG_PEEK)
            if size:
                self._delivery.take(memoryview(buffer)[:size])
                self._socket.recv_into(buffer, size)
            return size
        except BlockingIOError:
            return None
        finally:
            del buffer


def _buffered(io: IOStream) -> int:
    """Return how many bytes a connection has taken and not handled."""
    size: int = io._read_buffer_size
    return size


async def _flushed(io: IOStream) -> None:
    """Wait until all is written that is to be written."""
    with contextlib.suppress(StreamClosedError):
        await io.write(b"")
