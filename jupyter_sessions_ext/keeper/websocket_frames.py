"""Websocket frames: a client's messages, in the bytes that came on its connection."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from .protocol import CHANNELS, Channel


class Request(NamedTuple):
    """A client's message for the kernel."""

    channel: Channel
    parts: list[bytes]
    """Header, parent header, metadata, content and buffers."""


class NotAMessageError(ValueError):
    """A client has sent something else."""


def requests(data: bytes) -> Iterator[Request]:
    """Yield what is whole of a client's messages in the bytes of a websocket (RFC 6455).

    :raises NotAMessageError: it is none, or compressed
    """
    message = bytearray()  # a client may send a message in as many fragments as it has bytes
    opcode = 0
    for final, code, payload in _frames(data):
        if code >= 8:  # closing, ping, pong
            continue
        opcode = code or opcode
        message += payload
        if final:
            yield _request(opcode, bytes(message))
            message.clear()


def _frames(data: bytes) -> Iterator[tuple[bool, int, bytes]]:
    at = 0
    while len(data) - at >= 6:
        first, second = data[at], data[at + 1]
        if first & 0x70 or not second & 0x80:
            raise NotAMessageError("compressed, or not from a client")
        length, head = second & 0x7F, 2
        if length == 126:
            (length,), head = struct.unpack_from("!H", data, at + 2), 4
        elif length == 127:
            if len(data) - at < 10:
                return
            (length,), head = struct.unpack_from("!Q", data, at + 2), 10
        body = at + head + 4
        at = body + length
        if at > len(data):
            return
        mask = data[body - 4 : body]
        key = int.from_bytes((mask * (length // 4 + 1))[:length], "big")
        clear = int.from_bytes(data[body:at], "big") ^ key
        yield bool(first & 0x80), first & 15, clear.to_bytes(length, "big")


def _request(opcode: int, message: bytes) -> Request:
    """Take apart one of the forms of jupyter_server's ``services/kernels/connection/base.py``."""
    try:
        if opcode == 1:
            return _from_json(json.loads(message), [])
        if int.from_bytes(message[:8], "little") < 1 << 16:
            return _from_v1(message)
        return _from_binary(message)
    except (ValueError, LookupError, TypeError, RecursionError, struct.error) as error:
        raise NotAMessageError(repr(error)) from error


def _from_v1(message: bytes) -> Request:
    count = int.from_bytes(message[:8], "little")
    offsets = _ascending(struct.unpack_from(f"<{count}Q", message, 8))
    channel = message[offsets[0] : offsets[1]].decode()
    parts = [message[offsets[i] : offsets[i + 1]] for i in range(1, count - 1)]
    if len(parts) < 4:
        raise ValueError(f"{len(parts)} parts")
    return Request(CHANNELS[channel], parts)


def _from_binary(message: bytes) -> Request:
    (count,) = struct.unpack_from("!I", message)
    offsets = _ascending([*struct.unpack_from(f"!{count}I", message, 4), len(message)])
    first, *buffers = (message[offsets[i] : offsets[i + 1]] for i in range(count))
    return _from_json(json.loads(first), buffers)


def _ascending(offsets: Sequence[int]) -> Sequence[int]:
    """Return where parts begin and end: taken together they are no longer than the message.

    :raises ValueError: a part begins before the one that precedes it
    """
    if any(end < start for start, end in pairwise(offsets)):
        raise ValueError("parts that overlap")
    return offsets


def _from_json(message: dict[str, Any], buffers: list[bytes]) -> Request:
    names = ("header", "parent_header", "metadata", "content")
    parts = [json.dumps(message[name]).encode() for name in names]
    return Request(CHANNELS[message.get("channel") or "shell"], [*parts, *buffers])
