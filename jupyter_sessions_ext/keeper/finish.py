"""A reply that was lost with a keeper is made of what the kernel has published."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from .client import Client
from .loop import Loop
from .messages import CONTENT, HEADER, PARENT, message_id
from .protocol import Channel

WAIT = 1.0
"""Seconds that a reply may come after the kernel was done with a request."""


class Finisher:
    """Sees to it that requests are replied to that were under way when a keeper was killed.

    :param clients: who has sent them
    :param sign: makes frames of header, parent header, metadata and content
    """

    def __init__(
        self,
        loop: Loop,
        clients: Sequence[Client],
        sign: Callable[[Sequence[bytes]], list[bytes]],
    ) -> None:
        self._loop = loop
        self._sign = sign
        self._open = {asked: client for client in clients for asked in client.memo.pending}
        self._seen: dict[str, dict[str, Any]] = {}

    def see(self, frames: Sequence[bytes]) -> None:
        """Take note of what is published."""
        asked = message_id(frames[PARENT]) if self._open else None
        if asked not in self._open or asked is None:
            return
        header, content = json.loads(frames[HEADER]), json.loads(frames[CONTENT])
        seen = self._seen.setdefault(asked, {"status": "ok"})
        if header["msg_type"] == "execute_input":
            seen |= {"execution_count": content["execution_count"]}
        elif header["msg_type"] == "error":
            seen |= {**content, "status": "error"}
        elif content.get("execution_state") == "idle":
            self._loop.call_later(WAIT, lambda: self._finish(asked, header, frames[PARENT]))

    def _finish(self, asked: str, header: dict[str, Any], parent: bytes) -> None:
        client, seen = self._open.pop(asked), self._seen.pop(asked)
        if asked not in client.memo.pending or "execution_count" not in seen:
            return  # it was replied to, or it was no execution
        if seen["status"] == "ok":
            seen |= {"user_expressions": {}, "payload": []}
        # As the kernel's own: a client may take another session for another kernel.
        header |= {"msg_id": uuid.uuid4().hex, "msg_type": "execute_reply"}
        parts = [json.dumps(header).encode(), parent, b"{}", json.dumps(seen).encode()]
        client.replied(Channel.SHELL, [self._sign(parts)])
