"""What the keeper and the server say to each other: packets on a unix socket, records on disk.

A packet is a head, the lengths of its frames, and the frames. A kernel's message is one packet, a
record, and is kept in the same form: what is sent to the server is read from the file as it is.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from enum import IntEnum
from pathlib import Path
from typing import Any, NamedTuple

VERSION = 3
"""Of what is said; a server replaces a keeper of another one.

For that, packets of JSON and the calls ``hello`` and ``retire`` must stay as they are; and so must
the files of rings and clients, which the keeper's successor goes on with. A server tells its
version in ``hello``: when the package is upgraded under it, the keepers that it starts are of the
next one, which must do as it says.
"""

OLD_VERSION = 2
"""Of a server that tells none: what is between it and this keeper is in ``server.Keeper``."""

SOCKET, LOCK = "keeper.sock", "keeper.lock"
"""Files in the keeper's folder."""

RINGS, CLIENTS = "rings", "clients"
"""Folders in it."""

DAY = 24 * 3600

DEFAULT_LIMIT = 16 << 20
"""Bytes that are kept of what one kernel sends."""

DEFAULT_TOTAL = 256 << 20
"""Bytes that are kept of what all kernels send."""

LIMIT = 1 << 30
"""Bytes of a packet: what is longer was never meant as one."""

JSON_LIMIT = 1 << 20
"""Bytes of a packet of JSON."""

_MOST_FILES = 16
"""Descriptors that come with one packet."""


def ended_file(folder: Path) -> Path:
    """Return where a keeper notes, as JSON, why it has ended kernels, by kernel id."""
    return folder / "ended.json"


def namespaces() -> dict[str, str]:
    """Return what tells the processes and the network that are seen here from others'.

    Containers have others; so have hosts that share a folder.
    """
    found = {}
    for name, path in (("pid", "/proc/self/ns/pid"), ("net", "/proc/self/ns/net")):
        with contextlib.suppress(OSError):
            found[name] = os.readlink(path)
    with contextlib.suppress(OSError):
        found["boot"] = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    return found


class Kind(IntEnum):
    """What a packet is."""

    CALL = 1
    """Server to keeper, JSON: it is answered under the same number."""
    ANSWER = 2
    """Keeper to server, JSON."""
    NOTE = 3
    """Either way, JSON: it is not answered."""
    RECORD = 4
    """A kernel's message, see :class:`Record`; the number is its place in the kernel's ring."""
    REQUEST = 5
    """Server to keeper: a client's message for the kernel; the number is the client's stream."""
    STREAM = 6
    """Keeper to server, one frame: records for the client whose stream the number is."""
    FED = 7
    """Server to keeper: a kernel's id, and a message that it has published. See :mod:`.splice`."""


class Channel(IntEnum):
    """A kernel's channel."""

    IOPUB = 0
    SHELL = 1
    STDIN = 2
    CONTROL = 3


CHANNELS = {channel.name.lower(): channel for channel in Channel}
"""By the name that clients use."""


class ProtocolError(ValueError):
    """What was received is not a packet."""


class Packet(NamedTuple):
    """One packet."""

    kind: Kind
    channel: Channel
    number: int
    frames: list[bytes]

    @property
    def body(self) -> dict[str, Any]:
        """What a packet of JSON says.

        :raises ProtocolError: it is not a JSON object
        """
        try:
            body = json.loads(self.frames[0])
        except (ValueError, IndexError) as error:
            raise ProtocolError(f"no JSON: {error}") from error
        if not isinstance(body, dict):
            raise ProtocolError(f"not a JSON object: {body!r:.80}")
        return body


class Record(NamedTuple):
    """A kernel's message, as it came."""

    channel: Channel
    number: int
    """Its place in the kernel's ring, from 1."""
    client: bytes
    """The client it is for; empty on iopub, which is for all."""
    frames: list[bytes]
    """Signature, header, parent header, metadata, content and buffers."""


_HEAD = struct.Struct("<IBBHQ")
HEAD_SIZE = _HEAD.size
"""Bytes of a packet's head: its length without the head, kind, channel, frames, number."""

_KINDS = {int(kind): kind for kind in Kind}
_CHANNELS = {int(channel): channel for channel in Channel}


def pack(kind: Kind, channel: Channel, number: int, frames: Sequence[bytes]) -> bytes:
    """Return a packet.

    :raises ProtocolError: it is too long
    """
    lengths = [len(frame) for frame in frames]
    if sum(lengths) > LIMIT - 4 * len(lengths):
        raise ProtocolError(f"{sum(lengths)} bytes")
    try:
        return b"".join((
            _HEAD.pack(4 * len(lengths) + sum(lengths), kind, channel, len(lengths), number),
            struct.pack(f"<{len(lengths)}I", *lengths),
            *frames,
        ))  # fmt: skip
    except struct.error as error:
        raise ProtocolError(f"{sum(lengths)} bytes in {len(lengths)} frames: {error}") from error


def pack_json(kind: Kind, number: int = 0, /, **body: Any) -> bytes:
    """Return a packet of JSON.

    :raises ProtocolError: it is too long: the other end would take the connection for broken
    """
    data = json.dumps(body).encode()
    if len(data) > JSON_LIMIT - 4:
        raise ProtocolError(f"{len(data)} bytes of JSON")
    return pack(kind, Channel.IOPUB, number, [data])


def receive(connection: socket.socket, size: int) -> tuple[bytes, list[int]]:
    """Receive bytes and the descriptors that came with them.

    No program that this process starts inherits those.
    """
    flags = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
    data, files, _, _ = socket.recv_fds(connection, size, _MOST_FILES, flags)
    for file in files:
        os.set_inheritable(file, False)
    return data, files


class Unpacker:
    """Makes packets of what comes in from a socket, however it is cut."""

    def __init__(self) -> None:
        self._left = bytearray()

    def feed(self, data: bytes) -> Iterator[Packet]:
        """Yield the packets that are complete.

        :raises ProtocolError: it is no packet; the socket is of no more use
        """
        self._left += data
        used = 0
        try:
            for packet, used in _packets(self._left):  # noqa: B007 - how far it came
                yield packet
        finally:
            del self._left[:used]


def _packets(data: bytes | bytearray) -> Iterator[tuple[Packet, int]]:
    """Yield the whole packets of some data, each with where it ends."""
    start = 0
    while len(data) - start >= _HEAD.size:
        length, kind, channel, count, number = _HEAD.unpack_from(data, start)
        if kind not in _KINDS or channel not in _CHANNELS:
            raise ProtocolError(f"kind {kind} on channel {channel}")
        if length > (JSON_LIMIT if kind <= Kind.NOTE else LIMIT):
            raise ProtocolError(f"{length} bytes of kind {kind}")
        body = start + _HEAD.size
        end = body + length
        if end > len(data):
            return
        at = body + 4 * count
        if at > end:
            raise ProtocolError(f"{count} frames in {length} bytes")
        frames = []
        for size in struct.unpack_from(f"<{count}I", data, body):
            frames.append(bytes(data[at : at + size]))
            at += size
        if at != end:
            raise ProtocolError(f"{count} frames in {length} bytes")
        yield Packet(_KINDS[kind], _CHANNELS[channel], number, frames), end
        start = end


def pack_record(channel: Channel, number: int, client: bytes, frames: Sequence[bytes]) -> bytes:
    """Return a record in the form in which it is kept and sent."""
    return pack(Kind.RECORD, channel, number, [client, *frames])


def unpack_records(data: bytes) -> Iterator[Record]:
    """Yield the whole records of some data.

    :raises ProtocolError: there is something else in it
    """
    for packet, _ in _packets(data):
        if packet.kind is not Kind.RECORD or not packet.frames:
            raise ProtocolError(f"a {packet.kind.name} among records")
        client, *frames = packet.frames
        yield Record(packet.channel, packet.number, client, frames)


def measure_records(data: bytes, size: int | None = None) -> tuple[int, int, int]:
    """Return how many whole records some data begins with, where they end, and the last's number.

    :param size: where to stop; there is always one record, if it is whole
    :raises ProtocolError: there is something else in it
    """
    count = end = last = 0
    while len(data) - end >= _HEAD.size:
        length, kind, _, _, number = _HEAD.unpack_from(data, end)
        if kind != Kind.RECORD:
            raise ProtocolError(f"kind {kind} among records")
        beyond = end + _HEAD.size + length
        if beyond > len(data) or (size is not None and beyond > size and count):
            break
        count, end, last = count + 1, beyond, number
    return count, end, last


def record_spans(data: bytes) -> Iterator[tuple[Channel, int, int, int]]:
    """Yield the whole records that some data begins with: channel, number, start and end."""
    start = 0
    while len(data) - start >= _HEAD.size:
        length, _, channel, _, number = _HEAD.unpack_from(data, start)
        end = start + _HEAD.size + length
        if end > len(data):
            return
        yield _CHANNELS[channel], number, start, end
        start = end


def offset_of(data: bytes, count: int) -> int:
    """Return where the record begins, in some data, that so many others precede."""
    offset = 0
    for _ in range(count):
        offset += HEAD_SIZE + _HEAD.unpack_from(data, offset)[0]
    return offset


def length_of_first(data: bytes) -> int:
    """Return how long the packet is that some data, of 16 bytes at least, begins with."""
    length: int = _HEAD.unpack_from(data, 0)[0]
    return _HEAD.size + length
