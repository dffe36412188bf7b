"""A kernel's message as the text that clients without a subprotocol get, made of its own bytes.

jupyter_server makes objects of a message and JSON of them again. That is most of what a cell costs
the server; the text that the kernel has sent means the same.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Sequence
from typing import Any

from jupyter_client.session import Session


class Message:
    """A message that can be passed on as it is.

    :param frames: signature, header, parent header, metadata, content and buffers
    :raises ValueError: it cannot: it has buffers, is of an older protocol, or is none
    """

    def __init__(self, session: Session, frames: Sequence[bytes]) -> None:
        signature, *parts = frames
        if len(parts) != 4 or session.packer != "json":
            raise ValueError("there is more to be done than to pass it on")
        if session.auth is not None and not hmac.compare_digest(signature, session.sign(parts)):
            raise ValueError("it is not the kernel's")
        self._texts = [part.decode(errors="replace") for part in parts]
        header, parent, metadata, content = map(json.loads, self._texts)
        if not all(isinstance(part, dict) for part in (header, parent, metadata, content)):
            raise ValueError("it is no message")
        if not str(header.get("version")).startswith("5.") or "date" not in header:
            raise ValueError("it is of an older protocol")
        ids = [header.get("msg_id"), header.get("msg_type")]
        if not all(isinstance(found, str) for found in ids):
            raise ValueError("it has no name")
        self._ids = [json.dumps(found) for found in ids]
        self.parts: list[bytes] = parts
        self.read: dict[str, Any] = {"header": header, "parent_header": parent, "content": content}
        """What its parts say."""

    def text(self, channel: str) -> str:
        """Return it as JSON."""
        header, parent, metadata, content = self._texts
        message_id, kind = self._ids
        return (
            f'{{"header": {header}, "msg_id": {message_id}, "msg_type": {kind}, '
            f'"parent_header": {parent}, "metadata": {metadata}, "content": {content}, '
            f'"buffers": [], "channel": "{channel}"}}'
        )
