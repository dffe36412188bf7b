"""Jupyter's messages on zmq, as far as the keeper must know them."""

from __future__ import annotations

import hashlib
import hmac
import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from .protocol import Channel

DELIMITER = b"<IDS|MSG>"

HEADER, PARENT, CONTENT = 1, 2, 4
"""Where a message's frames have them; the first is its signature."""

_LONGEST_IDENTITY = 512
"""Bytes; the digests of all signature schemes are shorter, and so are common headers."""

_SESSION = "jupyter-sessions-keeper-"
"""What keepers' own questions to kernels carry, so that their answers are known as such."""


@dataclass(frozen=True, slots=True)
class Connection:
    """Where a kernel is, and with what its messages are signed: from its connection file."""

    transport: str
    ip: str
    ports: tuple[int, int, int, int]
    """By :class:`~.protocol.Channel`."""
    key: bytes = field(repr=False)
    scheme: str
    curve: bytes | None = None

    @classmethod
    def of(cls, info: dict[str, Any]) -> Connection:
        """Read what a connection file has.

        :raises KeyError: something is missing
        """
        names = ("iopub_port", "shell_port", "stdin_port", "control_port")
        curve = info.get("curve_publickey")
        return cls(
            transport=info["transport"],
            ip=info["ip"],
            ports=(info[names[0]], info[names[1]], info[names[2]], info[names[3]]),
            key=str(info.get("key", "")).encode(),
            scheme=info.get("signature_scheme", "hmac-sha256"),
            curve=curve.encode() if curve else None,
        )

    def url(self, channel: Channel) -> str:
        """Return where a channel is."""
        separator = "-" if self.transport == "ipc" else ":"
        return f"{self.transport}://{self.ip}{separator}{self.ports[channel]}"

    def sign(self, parts: Sequence[bytes]) -> list[bytes]:
        """Return a message's frames of its header, parent, metadata, content and buffers."""
        if not self.key:
            return [b"", *parts]
        digest = getattr(hashlib, self.scheme.removeprefix("hmac-"))
        signature = hmac.new(self.key, b"".join(parts[:4]), digest).hexdigest()
        return [signature.encode(), *parts]

    def message(self, kind: str, content: dict[str, Any], parent: bytes = b"{}") -> list[bytes]:
        """Return the frames of a message of the keeper's own."""
        header = {
            "msg_id": uuid.uuid4().hex,
            "msg_type": kind,
            "session": f"{_SESSION}{uuid.uuid4().hex}",
            "username": "keeper",
            "date": datetime.now(timezone.utc).isoformat(),
            "version": "5.3",
        }
        return self.sign([json.dumps(header).encode(), parent, b"{}", json.dumps(content).encode()])


def frames_of(message: list[bytes]) -> list[bytes]:
    """Return a message without its addresses: signature, header and so on; empty if it is none."""
    try:
        frames = message[message.index(DELIMITER) + 1 :]
    except ValueError:
        return []
    return frames if len(frames) >= 5 else []


def is_private(frames: Sequence[bytes]) -> bool:
    """Tell what is about the keeper's own questions and subscription, and no client's interest."""
    return _SESSION.encode() in frames[PARENT] or b'"iopub_welcome"' in frames[HEADER]


def identity(frames: Sequence[bytes]) -> bytes:
    """Return what tells a message from all others: its signature, or its header without one.

    A kernel may send anything there: of what is long it is a digest.
    """
    found = frames[0] or frames[HEADER]
    return found if len(found) <= _LONGEST_IDENTITY else hashlib.blake2b(found).digest()


def read(frame: bytes) -> dict[str, Any]:
    """Return the object that a frame has; an empty one if it has none: kernels may send anything.

    A kernel's output need not be text: what is no UTF-8 in it is replaced.
    """
    try:
        found = json.loads(frame.decode(errors="replace"))
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def message_id(header: bytes) -> str | None:
    """Return the id that a header has."""
    return id_and_type(header)[0]


def message_type(header: bytes) -> str | None:
    """Return the type that a header has."""
    return id_and_type(header)[1]


def id_and_type(header: bytes) -> tuple[str | None, str | None]:
    """Return the id and the type that a header has."""
    found = read(header)
    asked, kind = found.get("msg_id"), found.get("msg_type")
    return (
        asked if isinstance(asked, str) else None,
        kind if isinstance(kind, str) else None,
    )


def remember(ids: dict[str, None], new: str, most: int) -> None:
    """Add to the latest ids."""
    ids[new] = None
    while len(ids) > most:
        del ids[next(iter(ids))]
