"""What is missing at the end of a cell is made of what is there: its reply, or that it is idle."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Sequence
from typing import Any

from .client import Client
from .loop import Loop
from .messages import CONTENT, HEADER, PARENT, message_id, message_type, read, remember
from .protocol import Channel

WAIT = 1.0
"""Seconds that what is missing may come after what shows that it is."""

PATIENCE = 3.0
"""Seconds that a kernel may take from its reply until it is idle."""

_MOST_IDLE = 1000
"""Requests of which it is known that they have ended: their replies may be yet to come."""


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
        self._begun: dict[str, tuple[dict[str, Any], bytes]] = {}

    def see(self, frames: Sequence[bytes]) -> None:
        """Take note of what is published."""
        asked = message_id(frames[PARENT]) if self._open else None
        if asked not in self._open or asked is None:
            return
        header, content = read(frames[HEADER]), read(frames[CONTENT])
        seen = self._seen.setdefault(asked, {"status": "ok"})
        self._begun[asked] = header, frames[PARENT]
        if header.get("msg_type") == "execute_input":
            seen |= {"execution_count": content.get("execution_count")}
        elif header.get("msg_type") == "error":
            seen |= {**content, "status": "error"}
        elif header.get("msg_type") == "status" and content.get("execution_state") == "idle":
            self._finish_soon(asked)

    @property
    def begun(self) -> list[str]:
        """The requests that have begun, and were not seen to end."""
        return [*self._begun]

    def end(self, begun: Sequence[str]) -> None:
        """Take requests as ended, for the kernel has answered a question that was put later.

        That they did was published when there was neither a keeper nor a server.
        """
        for asked in begun:
            self._finish_soon(asked)

    def _finish_soon(self, asked: str) -> None:
        self._loop.call_later(WAIT, lambda: self._finish(asked))

    def _finish(self, asked: str) -> None:
        client, seen = self._open.pop(asked, None), self._seen.pop(asked, {})
        header, parent = self._begun.pop(asked, ({}, b""))
        if client is None or asked not in client.memo.pending or "execution_count" not in seen:
            return  # it was replied to, or it was no execution
        if seen["status"] == "ok":
            seen |= {"user_expressions": {}, "payload": []}
        # As the kernel's own: a client may take another session for another kernel.
        header |= {"msg_id": uuid.uuid4().hex, "msg_type": "execute_reply"}
        parts = [json.dumps(header).encode(), parent, b"{}", json.dumps(seen).encode()]
        client.replied(Channel.SHELL, [self._sign(parts)])


class IdleWatch:
    """Sees to it that a cell that was replied to ends, though the kernel has dropped its end.

    What a kernel publishes faster than it can be taken it drops itself: its queue has room for
    1000 messages. A question that is put after the reply, and answered, and published, shows it.

    :param ask: puts a question to the kernel on its shell channel, and calls back when that was
        answered
    :param record: is given what is missing
    :param sign: makes frames of header, parent header, metadata and content
    :param is_behind: tells whether there is something that could not be looked at yet
    :param deaf: is told when a question was answered, and nothing at all was published meanwhile
    """

    def __init__(
        self,
        loop: Loop,
        ask: Callable[[Callable[[], object]], object],
        record: Callable[[list[list[bytes]]], object],
        sign: Callable[[Sequence[bytes]], list[bytes]],
        is_behind: Callable[[], bool] = lambda: False,
        deaf: Callable[[], object] = lambda: None,
    ) -> None:
        self._loop = loop
        self._deaf = deaf
        self._heard = 0
        """How many messages were published."""
        self._is_behind = is_behind
        self._ask = ask
        self._record = record
        self._sign = sign
        self._replied: dict[str, Sequence[bytes]] = {}
        self._idle: dict[str, None] = {}

    def reply(self, frames: Sequence[bytes]) -> None:
        """Take note of a reply on the shell channel."""
        asked = message_id(frames[PARENT])
        if asked is None or message_type(frames[HEADER]) != "execute_reply":
            return
        if asked not in self._idle:
            self._replied[asked] = frames
            self._loop.call_later(PATIENCE, lambda: self._look(asked))

    def publish(self, frames: Sequence[bytes]) -> None:
        """Take note of what is published."""
        self._heard += 1
        if b'"idle"' in frames[CONTENT] and message_type(frames[HEADER]) == "status":
            asked = message_id(frames[PARENT])
            if asked is not None:
                self._replied.pop(asked, None)
                remember(self._idle, asked, _MOST_IDLE)

    def _look(self, asked: str) -> None:
        if asked in self._replied:
            heard = self._heard
            self._ask(lambda: self._end_soon(asked, heard))

    def _end_soon(self, asked: str, heard: int) -> None:
        self._loop.call_later(WAIT, lambda: self._end(asked, heard))

    def _end(self, asked: str, heard: int) -> None:
        if self._is_behind():
            self._end_soon(asked, heard)
            return
        if self._heard == heard:
            self._deaf()
        frames = self._replied.pop(asked, None)
        if frames is None:
            return
        stream = {
            "name": "stderr",
            "text": "[Some of this cell's output is lost: the kernel was not heard.]\n",
        }
        self._record([
            self._message(frames, "stream", stream),
            self._message(frames, "status", {"execution_state": "idle"}),
        ])  # fmt: skip

    def _message(self, reply: Sequence[bytes], kind: str, content: dict[str, Any]) -> list[bytes]:
        """Return a message as if the kernel had sent it, about what it has replied to."""
        header = {**read(reply[HEADER]), "msg_id": uuid.uuid4().hex, "msg_type": kind}
        parts = [json.dumps(header).encode(), reply[PARENT], b"{}", json.dumps(content).encode()]
        return self._sign(parts)
